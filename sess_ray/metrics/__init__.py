"""The field's metrics of saliency maps, on arrays: `update` with one map, `merge` parts, read the `summary`."""

from sess_ray.metrics.localization import DifficultPointingGame, EnergyPointingGame, PointingGame
from sess_ray.metrics.metric import Metric, Summary
from sess_ray.metrics.perturbation import AverageDrop, AverageIncrease, Deletion, Insertion, Overall, at_input_size
from sess_ray.metrics.thresholds import CorLoc, MaskIoU, MaxBoxAcc, MaxBoxAccV2, PooledPxAP, PxAP
from sess_ray.metrics.walls import walls

__all__ = [
    "AverageDrop",
    "AverageIncrease",
    "CorLoc",
    "Deletion",
    "DifficultPointingGame",
    "EnergyPointingGame",
    "Insertion",
    "MaskIoU",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "Metric",
    "Overall",
    "PointingGame",
    "PooledPxAP",
    "PxAP",
    "Summary",
    "at_input_size",
    "walls",
]
