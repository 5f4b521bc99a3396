"""Maps as they are stored, and the folder that holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from sess_ray import SessError
from sess_ray.io.maps import decode_map, encode_map, quantize
from sess_ray.io.store import Store


def test_a_map_that_is_stored_smaller_is_enlarged_where_it_is_read():
    levels = np.random.default_rng(4).integers(0, 256, (12, 16), dtype=np.uint8)
    png = encode_map(levels)
    small = torch.from_numpy(levels)[None, None].double() / 255
    expected = F.interpolate(small, (45, 60), mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(decode_map(png, (45, 60)), expected, atol=1e-6)
    np.testing.assert_array_equal(decode_map(png, (12, 16)), decode_map(png))
    assert decode_map(png, (47, 60)).shape == (47, 60)  # 16 of 60 columns are 12.53 of 47 rows: 12 by rounding twice
    for other in ((45, 45), (60, 45), (6, 8), (13, 16), (15, 17)):
        with pytest.raises(SessError, match=r"the map is \(12, 16\), its row says"):
            decode_map(png, other)


def test_maps_survive_storage_to_half_a_level():
    saliency = np.random.default_rng(2).random((31, 47), np.float32)
    stored = decode_map(encode_map(quantize(saliency)))
    assert np.abs(stored - saliency).max() <= 0.5 / 255 + 1e-6
    assert (stored.dtype, stored.shape) == (np.float32, (31, 47))


def test_the_store_shows_whole_files_only_and_clears_only_its_own(tmp_path):
    store = Store(str(tmp_path / "out"))
    store.check_writable()
    assert not store.is_used()
    table = pa.table({"image_id": ["b", "a"], "uri": ["", ""], "stage": ["", ""], "error": ["", ""]})
    name = store.write_table("errors", table)
    assert store.write_table("errors", table) == name  # the same rows, the same file
    assert store.tables("errors") == [name]
    assert store.read_table(name).equals(table)
    assert store.is_used()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    store.clear()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SessError, match=r"cannot write .*choose another --output"):
        Store(str(tmp_path / "file" / "below")).check_writable()
