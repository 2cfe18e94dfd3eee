"""One small data set in every layout that is read: two products where the layout has several, three good frames and three
scratches each, every scratch at the same place. Frames have 60 x 40 px; the scratch covers x 30..49, y 10..19."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

WIDTH, HEIGHT = 60, 40
SCRATCH = (30, 10, 20, 10)  # x, y, width, height


def picture(path: Path, seed: int) -> None:
    """Write a frame of noise; the same seed gives the same pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


def drawn() -> np.ndarray:
    """The scratch, bool [HEIGHT, WIDTH]."""
    x, y, w, h = SCRATCH
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def mask(path: Path, value: int = 255) -> None:
    """Write the scratch as a mask of this grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), drawn().astype(np.uint8) * value)


def mvtec(root: Path) -> tuple[str, str, list[str]]:
    for product in ("bottle", "cable"):
        for n in range(3):
            picture(root / product / "train" / "good" / f"{n:03d}.png", n)
            picture(root / product / "test" / "scratch_head" / f"{n:03d}.png", 10 + n)
            mask(root / product / "ground_truth" / "scratch_head" / f"{n:03d}_mask.png")
    return str(root), "mvtec", ["bottle", "cable"]


def mpdd(root: Path) -> tuple[str, str, list[str]]:
    for n in range(3):
        picture(root / "metal_plate" / "test" / "good" / f"{n:03d}.png", n)
        picture(root / "metal_plate" / "test" / "scratches" / f"{n:03d}.png", 10 + n)
        mask(root / "metal_plate" / "ground_truth" / "scratches" / f"{n:03d}_mask.png")
    return str(root), "mpdd", ["metal_plate"]


def mad(root: Path) -> tuple[str, str, list[str]]:
    """MAD has no scratches: its burrs stand for them, by the words of the user."""
    for n in range(3):
        picture(root / "01Gorilla" / "train" / "good" / f"{n}.png", n)
        picture(root / "01Gorilla" / "test" / "Burrs" / f"{n}.png", 10 + n)
        mask(root / "01Gorilla" / "ground_truth" / "Burrs" / f"{n}.png")
    (root / "01Gorilla" / "transforms.json").write_text("{}")
    return str(root), "mad", ["01Gorilla"]


def visa(root: Path) -> tuple[str, str, list[str]]:
    for product in ("cashew", "pcb1"):
        value, label = {"cashew": (6, "small scratches"), "pcb1": (3, "scratch")}[product]
        rows = []
        for n in range(3):
            good, bad = (
                f"{product}/Data/Images/Normal/{n:04d}.JPG",
                f"{product}/Data/Images/Anomaly/{n:03d}.JPG",
            )
            truth = f"{product}/Data/Masks/Anomaly/{n:03d}.png"
            picture(root / good, n)
            picture(root / bad, 10 + n)
            mask(root / truth, value)
            rows += [(good, "normal", ""), (bad, label, truth)]
        with (root / product / "image_anno.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "label", "mask"), *rows])
    (root / "split_csv").mkdir()
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("object", "split", "label", "image", "mask"),
                ("cashew", "train", "normal", "cashew/Data/Images/Normal/0000.JPG", ""),
            ]
        )
    return str(root), "visa", ["cashew", "pcb1"]


def real_iad(root: Path) -> tuple[str, str, list[str]]:
    for product in ("audiojack", "usb"):
        train, test = [], []
        for n in range(3):
            good = f"OK/S{n:04d}/{product}_{n:04d}_OK_C1.jpg"
            bad = f"NG/HS/S{n:04d}/{product}_{n:04d}_NG_HS_C1.jpg"
            truth = bad.replace(".jpg", ".png")
            picture(root / "realiad_1024" / product / good, n)
            picture(root / "realiad_1024" / product / bad, 10 + n)
            mask(root / "realiad_1024" / product / truth)
            train.append({"category": product, "anomaly_class": "OK", "image_path": good, "mask_path": None})
            test.append({"category": product, "anomaly_class": "HS", "image_path": bad, "mask_path": truth})
        lists = root / "realiad_jsons" / "realiad_jsons"
        lists.mkdir(parents=True, exist_ok=True)
        document = {"meta": {"prefix": f"{product}/", "normal_class": "OK"}, "train": train, "test": test}
        (lists / f"{product}.json").write_text(json.dumps(document))
    return str(root), "real-iad", ["audiojack", "usb"]


def folder(root: Path) -> tuple[str, str, list[str]]:
    for product in ("lid", "valve"):
        for n in range(3):
            picture(root / product / "good" / f"{n}.png", n)
            picture(root / product / "scratch" / f"{n}.png", 10 + n)
            mask(root / product / "masks" / "scratch" / f"{n}.png")
    return str(root), "folder", ["lid", "valve"]


def _coco(root: Path, segmentation: object, **more: object) -> tuple[str, str, list[str]]:
    images, notes = [], []
    for product in ("lid", "valve"):
        for n in range(6):
            name = f"{product}/{n}.png"
            picture(root / "images" / name, n if n < 3 else 7 + n)
            images.append({"id": len(images), "file_name": name, "width": WIDTH, "height": HEIGHT})
            if n >= 3:
                notes.append({"id": len(notes), "image_id": images[-1]["id"], "category_id": 7, **more})
                if segmentation is not None:
                    notes[-1]["segmentation"] = segmentation
    file = root / "annotations.json"
    file.write_text(
        json.dumps({"images": images, "annotations": notes, "categories": [{"id": 7, "name": "scratch"}]})
    )
    return str(file), "coco", ["lid", "valve"]


def coco_boxes(root: Path) -> tuple[str, str, list[str]]:
    return _coco(root, None, bbox=list(SCRATCH))


def coco_polygons(root: Path) -> tuple[str, str, list[str]]:
    x, y, w, h = SCRATCH
    return _coco(root, [[x, y, x + w, y, x + w, y + h, x, y + h]])


def coco_run_lengths(root: Path) -> tuple[str, str, list[str]]:
    rle = coco.encode(np.asfortranarray(drawn().astype(np.uint8)))
    return _coco(root, {"size": rle["size"], "counts": rle["counts"].decode()})


def coco_uncompressed(root: Path) -> tuple[str, str, list[str]]:
    columns = drawn().T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *edges, len(columns)])  # the first pixel is 0, as it has to be
    return _coco(root, {"size": [HEIGHT, WIDTH], "counts": [int(run) for run in runs]})


def _tasks(root: Path, mark: dict[str, object]) -> tuple[str, str, list[str]]:
    tasks = []
    for product in ("lid", "valve"):
        for n in range(6):
            picture(root / "images" / f"{product}-{n}.png", n if n < 3 else 7 + n)
            sizes = {"original_width": WIDTH, "original_height": HEIGHT}
            result = [{"from_name": "defect", "to_name": "image", **sizes, **mark}] if n >= 3 else []
            data = {"image": f"/data/local-files/?d=line/{product}-{n}.png", "product": product}
            tasks.append({"id": len(tasks), "data": data, "annotations": [{"id": 1, "result": result}]})
    file = root / "export.json"
    file.write_text(json.dumps(tasks))
    return str(file), "label-studio", ["lid", "valve"]


def label_studio_boxes(root: Path) -> tuple[str, str, list[str]]:
    x, y, w, h = SCRATCH
    box = {"x": x / WIDTH * 100, "y": y / HEIGHT * 100, "width": w / WIDTH * 100, "height": h / HEIGHT * 100}
    return _tasks(
        root, {"type": "rectanglelabels", "value": {**box, "rotation": 0, "rectanglelabels": ["scratch"]}}
    )


def label_studio_polygons(root: Path) -> tuple[str, str, list[str]]:
    x, y, w, h = SCRATCH
    corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    points = [[px / WIDTH * 100, py / HEIGHT * 100] for px, py in corners]
    return _tasks(root, {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["scratch"]}})


def pack_brush(values: np.ndarray) -> list[int]:
    """Bytes as @thi.ng/rle-pack packs them, all runs repeated and of one width: enough to be decoded."""
    flat = values.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = [0, *edges], [*edges, len(flat)]
    bits = f"{len(flat):032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (4, 8, 12, 16))
    for start, end in zip(starts, ends, strict=True):
        for first in range(start, end, 1 << 16):
            bits += "1" + "11" + f"{min(end - first, 1 << 16) - 1:016b}" + f"{flat[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def label_studio_brushes(root: Path) -> tuple[str, str, list[str]]:
    rgba = np.repeat(drawn()[..., None], 4, 2).astype(np.uint8) * 255
    value = {"format": "rle", "rle": pack_brush(rgba), "brushlabels": ["scratch"]}
    return _tasks(root, {"type": "brushlabels", "value": value})


TREES = (
    *(
        mvtec,
        mpdd,
        mad,
        visa,
        real_iad,
        folder,
        coco_boxes,
        coco_polygons,
        coco_run_lengths,
        coco_uncompressed,
    ),
    *(label_studio_boxes, label_studio_polygons, label_studio_brushes),
)
