"""Images per second of the three forms of a set: python benchmarks/bench_data.py [--root DIR] [--images N]

Makes N photographs of 500x375 pixels in a temporary folder below DIR (give one on the file system to measure), the
same in every form, and removes them. Times opening a set for the first time and again, a pass of reading and decoding
alone, and an epoch of training batches as DeiT's recipe has them. The files are in the page cache, so that what is
measured is the work per image and not the disk.
"""

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from spp.data.images.module import ImageData
from spp.data.registry import identify, open_source
from spp.data.split import permutation

NUM_CLASSES = 10
NUM_TEST = NUM_CLASSES
BATCH_SIZE = 64
IMAGES_PER_FILE = 500
ROWS_PER_GROUP = 100
"""As the hub writes sets of images."""
SIMPLE = {"crop": "resized", "hflip": 0.5}
DEIT = {**SIMPLE, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25}

Samples = list[tuple[str, bytes, int]]


def make_samples(count: int, seed: int) -> Samples:
    """Name, encoded image and label; noise on several scales, so that a file has about 110 KB as ImageNet's have."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        pixels = np.zeros((375, 500, 3))
        for cells, strength in ((4, 90), (40, 40), (250, 16)):
            coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            pixels += strength * (np.asarray(coarse.resize((500, 375))) / 127.5 - 1)
        stream = io.BytesIO()
        Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8)).save(stream, "jpeg", quality=95)
        samples.append((f"{number:06d}", stream.getvalue(), number % NUM_CLASSES))
    return samples


def write_folder(root: Path, part: str, samples: Samples) -> None:
    for name, content, label in samples:
        file = root / part / f"class{label}" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def write_shards(root: Path, part: str, samples: Samples) -> None:
    root.mkdir(exist_ok=True)
    for number in range(0, len(samples), IMAGES_PER_FILE):
        with tarfile.open(root / f"{part}-{number // IMAGES_PER_FILE:04d}.tar", "w") as archive:
            for name, image, label in samples[number : number + IMAGES_PER_FILE]:
                for extension, content in (("jpg", image), ("cls", b"%d" % label)):
                    member = tarfile.TarInfo(f"{name}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_parquet(root: Path, part: str, samples: Samples) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number in range(0, len(samples), IMAGES_PER_FILE):
        chosen = samples[number : number + IMAGES_PER_FILE]
        cells = [{"bytes": content, "path": f"{name}.jpg"} for name, content, _ in chosen]
        table = pa.table({"image": cells, "label": [label for *_, label in chosen]})
        file = root / "data" / f"{part}-{number // IMAGES_PER_FILE:05d}.parquet"
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP)


WRITERS = {"folder": write_folder, "shards": write_shards, "parquet": write_parquet}


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(form: str, root: Path, cache: Path, num_workers: int) -> None:
    """Print what one form needs."""

    def plan() -> None:
        identify("imagefolder", root, cache=cache)
        open_source("imagefolder", root, cache=cache).split("train")

    print(f"{form:8s} opened in {seconds(plan):6.2f} s, again in {seconds(plan):6.2f} s")
    train = open_source("imagefolder", root, cache=cache).split("train")
    order = permutation(len(train), 0).tolist()
    print(f"{form:8s} first image after {seconds(lambda: train[0]):6.2f} s")
    rate = len(train) / seconds(lambda: [train[index] for index in order])
    print(f"{form:8s} 1 process, decoding alone     {rate:7.0f} images/s")
    for name, augment in (("crop and flip", SIMPLE), ("DeiT's recipe", DEIT)):
        data = ImageData(
            name="imagefolder", root=root, cache=cache, img_size=224, batch_size=BATCH_SIZE, val_fraction=0.01,
            split_seed=0, seed=0, augment=augment, num_workers=num_workers,
        )  # fmt: skip
        loader = data.train_dataloader()
        next(iter(loader))  # starts the workers
        rate = BATCH_SIZE * len(loader) / seconds(lambda: list(loader))  # noqa: B023
        print(f"{form:8s} {num_workers} workers, {name:20s} {rate:7.0f} images/s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="folder on the file system to measure")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.root) as folder:
        train, test = make_samples(arguments.images, 0), make_samples(NUM_TEST, 1)
        print(f"{len(train)} images of {sum(len(content) for _, content, _ in train) / len(train) / 1e3:.0f} KB")
        for form, write in WRITERS.items():
            write(Path(folder, form), "train", train)
            write(Path(folder, form), "val", test)
        for form in WRITERS:
            measure(form, Path(folder, form), Path(folder, "cache"), arguments.workers)


if __name__ == "__main__":
    main()
