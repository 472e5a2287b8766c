import io
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from image_kit import blood

from luthier.adapt.backbones.base import Row
from luthier.adapt.backbones.image_cache import Records
from luthier.adapt.backbones.image_processor import ImageProcessor
from luthier.errors import DataError
from luthier.store import Cache
from luthier.types import Example, Origin


def picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def example(path, id="1"):
    return Example(id=id, input="", target=None, origin=Origin(maker="human", step="test", where="labels.csv:7"),
                   image=str(path))


def exact(size):
    return ImageProcessor(size=size, resize="exact")


def test_an_image_of_the_networks_size_is_not_changed():
    pixels = picture(40, 40)
    np.testing.assert_array_equal(exact(40).decode_bytes(encoded(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("code", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(code):
    upright = picture(40, 40)
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
              6: np.rot90(upright, 1), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1)}[code]
    exif = Image.Exif()
    exif[274] = code
    data = encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    np.testing.assert_array_equal(exact(40).decode_bytes(data), upright)


def test_grey_palette_sixteen_bit_and_cmyk_become_rgb_and_transparency_is_laid_on_white():
    grey = picture()[..., 0]
    found = exact(40).decode_bytes(encoded(Image.fromarray(grey[:, :40])))
    np.testing.assert_array_equal(found, np.repeat(grey[:, :40, None], 3, axis=2))
    deep = Image.fromarray(grey[:, :40].astype(np.uint16) * 257)
    np.testing.assert_allclose(exact(40).decode_bytes(encoded(deep)), found, atol=1)
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[:, :20] = (10, 20, 30, 255)
    laid = exact(40).decode_bytes(encoded(Image.fromarray(clear)))
    assert (laid[:, :20] == (10, 20, 30)).all() and (laid[:, 20:] == 255).all()
    for mode, kind in (("P", "GIF"), ("CMYK", "JPEG"), ("1", "TIFF"), ("LA", "PNG")):
        assert exact(40).decode_bytes(encoded(Image.fromarray(picture()).convert(mode), kind)).shape == (40, 40, 3)


def test_crop_keeps_the_centre_and_proportions_and_exact_keeps_everything():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255
    data = encoded(Image.fromarray(image))
    assert ImageProcessor(size=40).decode_bytes(data).min() == 255
    squeezed = exact(40).decode_bytes(data)
    assert squeezed[:, :8].max() == 0 and squeezed[:, 12:28].min() == 255
    half = ImageProcessor(size=20, crop=0.5).decode_bytes(encoded(Image.fromarray(picture(40, 40))))
    np.testing.assert_array_equal(half, picture(40, 40)[10:30, 10:30])


def test_small_images_are_enlarged_and_arrays_read_like_files():
    grey = picture(28, 28)[..., 0]
    processor = ImageProcessor(size=96)
    assert processor.array(grey).shape == (96, 96, 3)
    np.testing.assert_array_equal(processor.array(grey), processor.decode_bytes(encoded(Image.fromarray(grey))))
    with pytest.raises(DataError, match="float64"):
        processor.array(grey / 255)


def test_a_batch_is_normalised_by_channel_with_channels_last_in_memory():
    rows = [Row(str(i), picture(8, 8, i), 1) for i in range(3)]
    batch = ImageProcessor(size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).batch(rows)["pixels"]
    expected = (np.stack([row.data for row in rows]) / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.6, 0.7)
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert batch.permute(0, 2, 3, 1).is_contiguous()
    flipped = ImageProcessor(size=8, mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, order="bgr").batch(rows)["pixels"]
    np.testing.assert_array_equal(flipped[:, 0].numpy(), np.stack([row.data[..., 2] for row in rows]))


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    processor = ImageProcessor(size=8, root=tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.jpg").write_bytes(encoded(Image.fromarray(picture(200, 200)), "JPEG")[:900])
    with pytest.raises(DataError, match=r"text\.png is not an image"):
        processor.read(example("text.png"))
    with pytest.raises(DataError, match=r"cut\.jpg is damaged"):
        processor.read(example("cut.jpg"))
    for cache in (None, Cache(tmp_path / "cache")):
        processor.cache = cache
        with pytest.raises(DataError, match=r"gone\.jpg cannot be read: No such file"):
            processor.read_many([example("gone.jpg")])
    with pytest.raises(DataError, match=r"labels\.csv:7\) names no image"):
        processor.read(example(""))


def test_a_saved_processor_comes_back_equal(tmp_path):
    processor = ImageProcessor(size=75, mean=(1, 2, 3), std=(4, 5, 6), scale=1.0, order="bgr", crop=0.875)
    processor.save(tmp_path)
    assert ImageProcessor.restore(tmp_path) == processor


def written(tmp_path, count=4):
    for at in range(count):
        (tmp_path / f"{at}.png").write_bytes(encoded(Image.fromarray(picture(seed=at))))
    return [example(f"{at}.png", str(at)) for at in range(count)]


def test_cached_rows_equal_decoded_ones_and_follow_a_changed_file_and_setting(tmp_path):
    examples = written(tmp_path)
    plain = ImageProcessor(size=16, root=tmp_path).read_many(examples)
    for _ in range(2):
        kept = ImageProcessor(size=16, root=tmp_path, cache=Cache(tmp_path / "c")).read_many(examples)
        assert all(np.array_equal(a.data, b.data) and a.id == b.id for a, b in zip(plain, kept))
    (tmp_path / "2.png").write_bytes(encoded(Image.fromarray(picture(30, 30, seed=9))))
    changed = ImageProcessor(size=16, root=tmp_path, cache=Cache(tmp_path / "c")).read_many(examples)
    assert not np.array_equal(changed[2].data, plain[2].data) and np.array_equal(changed[1].data, plain[1].data)
    other = ImageProcessor(size=20, root=tmp_path, cache=Cache(tmp_path / "c")).read_many(examples)
    assert other[0].data.shape == (20, 20, 3)


def test_records_survive_a_process_killed_while_writing(tmp_path):
    records = Records(tmp_path, (4, 4, 3))
    a, b = picture(4, 4, 1), picture(4, 4, 2)
    records.put({"a" * 32: a})
    with (tmp_path / "records.bin").open("ab") as file:
        file.write(b"half a record")
    with (tmp_path / "keys").open("ab") as file:
        file.write(b"bbbb")
    again = Records(tmp_path, (4, 4, 3))
    assert again.get("b" * 32) is None
    again.put({"b" * 32: b})
    for kept in (again, Records(tmp_path, (4, 4, 3))):
        np.testing.assert_array_equal(kept.get("a" * 32), a)
        np.testing.assert_array_equal(kept.get("b" * 32), b)


def _fill(folder, start):
    records = Records(folder, (4, 4, 3))
    for at in range(start, start + 20):
        records.put({f"{at:032x}": picture(4, 4, at)})


def test_two_processes_write_without_losing_or_mixing_records(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = Records(tmp_path, (4, 4, 3))
    assert len(records) == 30
    for at in range(30):
        np.testing.assert_array_equal(records.get(f"{at:032x}"), picture(4, 4, at))


def test_a_second_epoch_reads_many_times_faster(tmp_path):
    rng = np.random.default_rng(0)
    for at in range(30):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((640, 480))
        smooth.save(tmp_path / f"{at}.jpg", quality=90)
    examples = [example(f"{at}.jpg", str(at)) for at in range(30)]
    processor = ImageProcessor(size=96, root=tmp_path, cache=Cache(tmp_path / "c"))
    seconds = []
    for _ in range(2):
        began = time.process_time()
        sum(int(row.data[0, 0, 0]) for row in processor.read_many(examples))
        seconds.append(time.process_time() - began)
    print(f"first {seconds[0] * 1000:.1f} ms, second {seconds[1] * 1000:.1f} ms")
    assert seconds[1] * 5 < seconds[0]


def test_blood_cells_are_read(tmp_path):
    items = blood(20)
    processor = ImageProcessor(size=96, cache=Cache(tmp_path))
    rows = processor.read_many([example(path, str(at)) for at, (path, *_) in enumerate(items)])
    assert {row.data.shape for row in rows} == {(96, 96, 3)} and len({row.data.tobytes() for row in rows}) == len(rows)
