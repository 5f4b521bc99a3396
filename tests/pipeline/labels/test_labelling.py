"""Labels of a run, chosen by its evaluation: they score what the evaluation says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from pycocotools.coco import COCO

from sess_ray.cli import command
from sess_ray.cli import evaluate as evaluate_dataset
from sess_ray.cli import labels as export_labels
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.maps import encode_map, quantize
from sess_ray.io.store import MAPS, Store
from sess_ray.metrics.localization import reaches
from sess_ray.metrics.thresholds import THRESHOLDS
from sess_ray.pipeline.labels.prepare import best_threshold, default_min_score

pytestmark = pytest.mark.usefixtures("ray_session")

HEIGHT, WIDTH = 48, 64
NAMES = {0: "mouse", 2: "two words"}


def blob(y, x, spread):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * spread**2))


@pytest.fixture(scope="module")
def things():
    """Where a thing is, as a polygon, and a map that half finds it, of 20 images with one or two; seed 12."""
    draw = np.random.default_rng(12)
    found = {}
    for number in range(20):
        for target in (0, 2)[: 1 + number % 2]:
            x0, y0 = draw.uniform(2, 30), draw.uniform(2, 20)
            x1, y1 = x0 + draw.uniform(10, 30), y0 + draw.uniform(10, 24)
            y, x = draw.normal((y0 + y1) / 2, 4), draw.normal((x0 + x1) / 2, 4)
            spread = (x1 - x0 + y1 - y0) / 4 * draw.uniform(0.5, 1.2)
            corners = [x0, y0, x1, y0, x1, y1, (x0 + x1) / 2, y1, x0, (y0 + y1) / 2]
            found[f"{number % 3}/{number}.jpg", target] = corners, [x0, y0, x1, y1], blob(y, x, spread)
    return found


@pytest.fixture(scope="module")
def folder(things, tmp_path_factory):
    """A run with a map that shows nothing and one that is damaged, and its annotations."""
    root = tmp_path_factory.mktemp("export")
    store = Store(str(root / "run"))
    rows = [
        {"image_id": name, "target": target, "target_name": NAMES[target], "score": 0.2 + 0.1 * target, "uri": name}
        | {
            "saliency": {"bytes": encode_map(quantize(found)), "path": None},
            "num_patches": 1,
            "num_scored": 1,
            "num_kept": 1,
        }
        for (name, target), (_, _, found) in things.items()
    ]
    flat = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows.append({**rows[0], "image_id": "../flat.jpg", "saliency": {"bytes": encode_map(flat), "path": None}})
    rows.append({**rows[0], "image_id": "damaged.jpg", "saliency": {"bytes": b"no picture", "path": None}})
    rows = [{**row, "height": HEIGHT, "width": WIDTH, "peak_x": 0, "peak_y": 0} for row in rows]
    for part in (rows[:7], rows[7:]):
        store.write_table("maps", pa.Table.from_pylist(part, MAPS))
    settings = {"model": "tests.fragile:model", "weights": None, "layer": None, "targets": "top2", "annotations": None}
    store.write_json("run.json", {"config": settings, "model": {"weights_sha256": "0"}})
    objects = {}
    for (name, target), (corners, box, _) in things.items():
        objects.setdefault(name, []).append({"label": str(target), "box": box, "segments": [corners]})
    lines = [json.dumps({"image_id": name, "objects": found}) for name, found in objects.items()]
    (root / "annotations.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def evaluation(folder):
    arguments = ["--run", f"mine={folder}/run", "--annotations", folder / "annotations.jsonl"]
    arguments += ["--metrics", "max_box_acc,mask_iou", "--output", folder / "evaluation"]
    assert command.run(evaluate_dataset.app, list(map(str, arguments))) == 0
    record = json.loads((folder / "evaluation" / "summary.json").read_text())
    return {line["metric"]: line["mean"] for line in record["summary"] if line["group"] == "all"}


def export(*arguments):
    return command.run(export_labels.app, list(map(str, arguments)))


def test_labels_score_what_the_evaluation_says(folder, things, evaluation):
    output = folder / "labels"
    assert export("--run", folder / "run", "--evaluation", folder / "evaluation", "--output", output) == 0
    record = json.loads((output / "labels.json").read_text())
    counts = {"images": 20, "objects": 30, "maps": 32, "covered": 0, "unrefined": 0}
    counts |= {"empty": 1, "damaged": 1, "unlikely": 0}
    assert record["counts"] == counts
    coco = COCO(output / "annotations.json")
    assert {entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())} == {1: "mouse", 2: "two words"}
    assert (output / "labels.txt").read_text().splitlines() == ["__background__", "mouse", "two words"]
    overlaps = []
    for entry in coco.loadAnns(coco.getAnnIds()):
        [image] = coco.loadImgs(entry["image_id"])
        [category] = coco.loadCats(entry["category_id"])
        corners, _, found = things[image["file_name"], category["target"]]
        truth = rle.merge(rle.frPyObjects([corners], HEIGHT, WIDTH))
        mask = coco.annToMask(entry)
        overlaps.append(rle.iou([entry["segmentation"]], [truth], [0]).item())
        stored = quantize(found) / np.float32(255)
        np.testing.assert_array_equal(mask.astype(bool), reaches(stored, record["threshold"]))
        x0, y0, x1, y1 = Image.fromarray(mask).getbbox()
        assert entry["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert entry["area"] == mask.sum()
        assert entry["score"] == pytest.approx(0.2 + 0.1 * category["target"])
    assert np.mean(overlaps) == pytest.approx(evaluation["mask_iou"], abs=1e-9)
    assert len(overlaps) == len(things)


def test_label_images_lie_where_pascal_voc_has_them(folder, things):
    output = folder / "voc"
    assert export("--run", folder / "run", "--threshold", 0.5, "--output", output) == 0
    names = (output / "ImageSets" / "Segmentation" / "train.txt").read_text().splitlines()
    assert len(names) == 20
    for name in names:
        picture = Image.open(output / "SegmentationClass" / f"{name}.png")
        assert (picture.mode, picture.size) == ("P", (WIDTH, HEIGHT))
        maps = {target: quantize(found) for (image, target), (_, _, found) in things.items() if image == f"{name}.jpg"}
        expected = np.zeros((HEIGHT, WIDTH))
        for y, x in np.ndindex(HEIGHT, WIDTH):
            reached = {
                target: found[y, x]
                for target, found in maps.items()
                if found[y, x] - found.min() >= 0.5 * np.ptp(found)
            }
            if reached:  # the likelier of equals, the second
                expected[y, x] = {0: 1, 2: 2}[max(reached, key=lambda target: (reached[target], target))]
        np.testing.assert_array_equal(np.asarray(picture), expected)
    assert {path.name for path in output.iterdir()} == {
        *("SegmentationClass", "SegmentationObject", "Annotations", "ImageSets"),
        *("labels.txt", "annotations.json", "labels.json"),
    }


def test_pascal_vocs_boxes_are_around_what_its_pictures_show(folder):
    output = folder / "instances"
    arguments = ["--run", folder / "run", "--threshold", 0.3, "--instances", "--output", output]
    assert export(*arguments) == 0
    annotations = read_annotations(str(output / "Annotations"))
    assert annotations.problems == []
    assert len(annotations.by_id) == 20
    names = dict(enumerate((output / "labels.txt").read_text().splitlines()))
    seen = 0
    for image_id, annotation in annotations.by_id.items():
        of_classes, of_objects = (
            np.asarray(Image.open(output / folder / image_id.replace(".jpg", ".png")))
            for folder in ("SegmentationClass", "SegmentationObject")
        )
        assert of_objects.max() == len(annotation.objects)
        for place, thing in enumerate(annotation.objects, 1):
            assert thing.box == Image.fromarray((of_objects == place).astype(np.uint8)).getbbox()
            assert {names[number] for number in of_classes[of_objects == place]} == {thing.label}
            seen += 1
    record = json.loads((output / "labels.json").read_text())
    assert record["min_part"] == 0.1
    assert seen == record["counts"]["objects"] - record["counts"]["covered"]


@pytest.mark.usefixtures("evaluation")
@pytest.mark.parametrize(("left_out", "chosen_by"), [([], "mask_iou"), (["mask_iou"], "max_box_acc")])
def test_an_evaluation_chooses_by_masks_else_by_boxes(folder, tmp_path, left_out, chosen_by):
    measured = Store(str(folder / "evaluation"))
    table = pa.concat_tables(measured.read_tables(measured.tables("results/mine")))
    results = Store(str(tmp_path))
    results.write_json("summary.json", measured.read_json("summary.json"))
    results.write_table("results/mine", table.drop_columns(left_out))
    best = int(np.mean(table[chosen_by].drop_null().to_pylist(), 0).argmax())
    assert best_threshold(results, f"{folder}/run") == THRESHOLDS[best]


def drawn(things, folder, name):
    """Write the image of an entry of `things`: what is annotated is red, the rest green, with noise; seed 5."""
    draw = np.random.default_rng(5)
    mask = Image.new("1", (WIDTH, HEIGHT))
    for (image, _), (corners, _, _) in things.items():
        if image == name:
            ImageDraw.Draw(mask).polygon(corners, fill=1)
    thing = np.asarray(mask)[..., None]
    pixels = np.where(thing, (200, 60, 50), (60, 150, 70)) + draw.normal(0, 8, (HEIGHT, WIDTH, 3))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def overlaps(things, output):
    """Return the intersection over union of each object with the truth, by image and class."""
    coco = COCO(output / "annotations.json")
    found = {}
    for entry in coco.loadAnns(coco.getAnnIds()):
        [image] = coco.loadImgs(entry["image_id"])
        [category] = coco.loadCats(entry["category_id"])
        key = image["file_name"], category["target"]
        truth = rle.merge(rle.frPyObjects([things[key][0]], HEIGHT, WIDTH))
        found[key] = rle.iou([entry["segmentation"]], [truth], [0]).item()
        x0, y0, x1, y1 = Image.fromarray(coco.annToMask(entry)).getbbox()
        assert entry["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    return found


def test_refined_masks_follow_the_images_and_bad_images_keep_their_maps(folder, things, capsys):
    images = folder / "images"
    alone = [name for name, _ in things if (name, 2) not in things]
    for name in alone:
        drawn(things, images, name)
    absent, broken, another = sorted(alone)[:3]
    (images / absent).unlink()
    (images / broken).write_bytes(b"no picture")
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(images / another)
    plain, refined, again = (folder / name for name in ("plain", "refined", "again"))
    arguments = ["--run", folder / "run", "--min-score", 0]
    assert export(*arguments, "--output", plain) == 0
    capsys.readouterr()
    for output in (refined, again):
        options = ["--refine", "grabcut", "--refine-option", "background=0.05", "--images", images]
        assert export(*arguments, *options, "--output", output) == 0
    assert "refinement: GrabCut(background=0.05" in (said := capsys.readouterr().out)
    record = json.loads((refined / "labels.json").read_text())
    assert record["refinement"]["background"] == 0.05
    assert record["versions"]["opencv"]
    unread = {name for name, _ in things} - set(alone) | {absent, broken, another}
    maps = sum(name in unread for name, _ in things)
    assert record["counts"]["unrefined"] == maps
    assert f"{maps} masks are not refined" in said
    errors = record["unreadable_images"]
    assert unread <= set(errors)
    assert "not an image" in errors[broken]
    assert f"the image has {WIDTH + 1} x {HEIGHT} pixels now" in errors[another]
    before, after = overlaps(things, plain), overlaps(things, refined)
    assert {key: after[key] for key in after if key[0] in unread} == {
        key: before[key] for key in before if key[0] in unread
    }
    gain = [after[key] - before[key] for key in after if key[0] not in unread]
    assert len(gain) == 7
    assert np.mean(gain) > 0.1
    assert (refined / "annotations.json").read_bytes() == (again / "annotations.json").read_bytes()


def test_unlikely_maps_are_left_out_and_counted(folder, capsys):
    output = folder / "likely"
    arguments = ["--run", folder / "run", "--threshold", 0.4, "--output", output]
    assert export(*arguments, "--min-score", 0.3) == 0
    assert (
        "10 objects in 10 images; of 32 maps 0 show nothing, 0 are damaged, 22 are below --min-score 0.3"
        in capsys.readouterr().out
    )
    assert export(*arguments) == 2
    assert "has labels already: add --overwrite" in capsys.readouterr().err
    assert export(*arguments, "--overwrite", "--min-score", 0.99) == 1
    assert list(output.glob("SegmentationClass/*")) == []
    assert json.loads((output / "annotations.json").read_text())["annotations"] == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"targets": "top1", "annotations": None}, 0.2),
        ({"targets": "top10", "annotations": None}, 0.2),
        ({"targets": "auto", "annotations": None}, 0.2),
        ({"targets": "auto", "annotations": "boxes.json"}, 0.05),
        ({"targets": "label", "annotations": None}, 0.05),
        ({"targets": "tabby,285", "annotations": None}, 0.05),
        (None, 0.2),
    ],
)
def test_the_least_score_depends_on_who_said_what_is_in_the_image(tmp_path, settings, expected):
    store = Store(str(tmp_path))
    if settings is not None:
        store.write_json("run.json", {"config": settings})
    assert default_min_score(store) == expected


def test_a_low_score_is_left_out_by_default_and_told(folder, capsys):
    run, output = folder / "unlikely", folder / "unlikely-labels"
    store = Store(str(run))
    for part in Store(str(folder / "run")).read_tables(Store(str(folder / "run")).tables("maps")):
        rows = [{**row, "score": 0.19 if row["target"] else 0.21} for row in part.to_pylist()]
        store.write_table("maps", pa.Table.from_pylist(rows, MAPS))
    assert export("--run", run, "--output", output) == 0
    said = capsys.readouterr().out
    assert "probability: 0.2 or more" in said
    assert "20 objects in 20 images" in said
    assert "10 are below --min-score 0.2" in said
    record = json.loads((output / "labels.json").read_text())
    assert (record["min_score"], record["threshold"], record["refinement"]) == (0.2, 0.25, None)
    assert record["counts"]["unlikely"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refine-option", "side=3"], "say which refinement by --refine"),
        (["--refine", "grabcut", "--refine-option", "side"], "--refine-option side: use key=value"),
        (["--refine", "grabcut", "--refine-option", "size=3"], "unknown option of grabcut 'size'"),
        (["--threshold", 0.4, "--evaluation", "x"], "give either --threshold or --evaluation"),
        (["--threshold", 1.5], "--threshold 1.5: use a share, 0 to 1"),
        (["--threshold", 0.5, "--min-part", "nan"], "--min-part nan: use a share, 0 to 1"),
        (["--threshold", 0.4, "--run", "nowhere"], "--run nowhere has no maps"),
        (["--evaluation", "nowhere"], "has no summary.json"),
        (["--evaluation", "{folder}/evaluation", "--run", "{folder}/copy"], "unknown run of the evaluation"),
    ],
)
@pytest.mark.usefixtures("evaluation")
def test_wrong_usage_is_one_line(folder, arguments, message, capsys):
    copy = Path(folder / "copy")
    if not copy.exists():
        copy.mkdir()
        (copy / "maps").symlink_to(folder / "run" / "maps")
    given = ["--run", f"{folder}/run", "--output", f"{folder}/x"] if "--run" not in arguments else ["--output", "x"]
    assert export(*given, *(str(entry).format(folder=folder) for entry in arguments)) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
