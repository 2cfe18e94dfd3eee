"""What each tree of folders says of itself, and what a wrong one is told."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from dapo.errors import SourceError
from tests.contract import dataset_trees as trees
from trainer.data.open import Options, open_dataset
from trainer.data.sample import State


class TestMvtec:
    def test_words_lists_and_splits(self, root):
        trees.mvtec(root)
        trees.picture(root / "bottle" / "test" / "print" / "9.png", 9)
        trees.mask(root / "bottle" / "ground_truth" / "print" / "9.png")
        data = open_dataset(f"mvtec:{root}").product("bottle")
        assert data.words == ("faulty imprint", "scratch")
        assert data.listed == ("broken", "contamination")
        assert data.absent == ("broken", "contamination")
        assert [s.split for s in data.samples] == ["test"] * 4 + ["train"] * 3
        assert len(data.test.samples) == 4

    def test_several_types_in_one_frame(self, root):
        trees.mvtec(root)
        (root / "bottle" / "types.json").write_text('{"0": "background", "1": "pin_hole", "2": "spur"}')
        labels = np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8)
        labels[10:20, 30:40], labels[10:20, 40:50], labels[0, 0] = 1, 2, 9
        where = root / "bottle" / "ground_truth_types" / "scratch_head"
        where.mkdir(parents=True)
        cv2.imwrite(str(where / "000_types.png"), labels)
        data = open_dataset(str(root)).product("bottle")
        sample = data.samples[0]
        assert (sample.word, sample.words) == (None, ("pin hole", "spur"))
        assert set(np.unique(sample.types_at(["pin hole", "spur"], 40))) == {-1, 0, 1, 2}
        assert data.words == ("pin hole", "spur", "scratch")
        cv2.imwrite(str(where / "000_types.png"), labels * 0)
        with pytest.raises(SourceError, match=r"000_types\.png: marks no pixel"):
            open_dataset(str(root)).product("bottle")

    def test_wrong_trees(self, root):
        trees.mvtec(root)
        lost = root / "bottle" / "ground_truth" / "scratch_head" / "001_mask.png"
        lost.unlink()
        with pytest.raises(SourceError, match=r"001\.png: has no mask.*001_mask\.png"):
            open_dataset(str(root)).product("bottle")
        (root / "cable" / "test" / "empty").mkdir()
        with pytest.raises(SourceError, match="no images in it"):
            open_dataset(str(root)).product("cable")
        for name in (f"mvtec:{root / 'cable'}", str(root / "cable")):
            with pytest.raises(
                SourceError, match=r"Expected PRODUCT/test/good.* Give .*data, the folder above"
            ):
                open_dataset(name)


class TestVisa:
    def test_its_labels_masks_and_split(self, root):
        trees.visa(root)
        data = open_dataset(str(root)).product("cashew")
        assert data.words == ("scratch",)
        assert data.listed[:2] == ("scratch", "breakage")
        splits = {s.key: s.split for s in data.samples}
        assert splits["cashew/Data/Images/Normal/0000.JPG"] == "train"
        assert splits["cashew/Data/Images/Normal/0001.JPG"] is None

    def test_several_types_are_told_by_grey_value(self, root):
        trees.visa(root)
        self._relabel(root, "small scratches,burnt")
        drawn = np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8)
        drawn[:10], drawn[20:30] = 6, 1
        cv2.imwrite(str(root / "cashew/Data/Masks/Anomaly/000.png"), drawn)
        sample = next(s for s in open_dataset(str(root)).product("cashew").samples if s.defective)
        states = sample.types_at(["burnt", "scratch"], 40)
        assert states[5, 5] == 2
        assert states[25, 5] == 1
        assert states[15, 5] == 0

    def test_other_says_no_type(self, root):
        trees.visa(root)
        self._relabel(root, "other")
        sample = next(s for s in open_dataset(str(root)).product("cashew").samples if s.defective)
        assert (sample.word, sample.drawn) == (None, True)

    @pytest.mark.parametrize(
        ("label", "says"),
        [
            ("normal,burnt", r"image_anno\.csv:3: label 'normal,burnt'"),
            (" ", r"image_anno\.csv:3: label ' '"),
        ],
    )
    def test_a_label_that_contradicts_itself(self, root, label, says):
        trees.visa(root)
        self._relabel(root, label)
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root)).product("cashew")

    @pytest.mark.parametrize("path", ["../secret.JPG", "/etc/passwd"])
    def test_nothing_outside_is_read(self, root, path):
        trees.visa(root)
        trees.picture(root.parent / "secret.JPG", 1)
        (root / "cashew" / "image_anno.csv").write_text(f"image,label,mask\n{path},normal,\n")
        with pytest.raises(SourceError, match=r"image_anno\.csv:2: file name .*expected a path below"):
            open_dataset(str(root)).product("cashew")

    def test_wrong_trees(self, root):
        trees.visa(root)
        (root / "cashew/Data/Images/Anomaly/001.JPG").unlink()
        with pytest.raises(SourceError, match=r"image_anno\.csv:5: .*001\.JPG: no such file"):
            open_dataset(str(root)).product("cashew")
        (root / "pcb1" / "image_anno.csv").write_text("image,mask\n")
        with pytest.raises(SourceError, match="has no column 'label'"):
            open_dataset(str(root)).product("pcb1")
        (root / "split_csv" / "1cls.csv").write_text("image,split\na,validation\n")
        with pytest.raises(SourceError, match=r"1cls\.csv:2: split 'validation'"):
            open_dataset(str(root))

    @staticmethod
    def _relabel(root, label):
        """Another label for the first defective frame of cashew."""
        path = root / "cashew" / "image_anno.csv"
        rows = list(csv.reader(path.read_text().splitlines()))
        rows[2][1] = label
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


class TestRealIad:
    def test_codes_groups_and_splits(self, root):
        trees.real_iad(root)
        samples = open_dataset(str(root)).product("usb").samples
        assert [s.word for s in samples] == ["good"] * 3 + ["scratch"] * 3
        assert samples[0].group == "usb/OK/S0000"
        assert samples[3].group == "usb/NG/HS/S0000"
        assert {s.split for s in samples} == {"train", "test"}

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"train": None}, r"usb\.json: train: expected a list"),
            ({"meta": 3}, r"usb\.json: meta: expected an object"),
            ({"meta": {"normal_class": "OK", "prefix": "../.."}}, r"meta: file name .*expected a path below"),
            ({"train": [3]}, r"train\[0\]: expected an object"),
            (
                {"train": [{"anomaly_class": "OK", "image_path": "../x.jpg"}]},
                r"train\[0\]: .*expected a path below",
            ),
            (
                {
                    "train": [
                        {
                            "anomaly_class": "HS",
                            "image_path": "OK/S0000/usb_0000_OK_C1.jpg",
                            "mask_path": "/etc/passwd",
                        }
                    ]
                },
                r"train\[0\]: .*expected a path below",
            ),
            (
                {"train": [{"anomaly_class": "OK", "image_path": "none.jpg"}]},
                r"train\[0\]: .*none\.jpg: no such file",
            ),
            ({"train": [], "test": []}, "lists no image"),
        ],
    )
    def test_wrong_lists(self, root, change, says):
        trees.real_iad(root)
        path = root / "realiad_jsons" / "realiad_jsons" / "usb.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root)).product("usb")

    def test_wrong_trees(self, root):
        trees.real_iad(root)
        (root / "realiad_1024").rename(root / "elsewhere")
        with pytest.raises(SourceError, match="Expected realiad_jsons"):
            open_dataset(str(root))


class TestFolder:
    def test_one_product_and_frames_nobody_looked_at(self, root):
        trees.picture(root / "good" / "1.png", 1)
        trees.picture(root / "deep_scratch" / "2.png", 2)
        trees.picture(root / "unlabelled" / "3.png", 3)
        data = open_dataset(str(root))
        assert data.products() == ["data"]
        samples = data.product("data").samples
        assert [(s.state, s.word) for s in samples] == [
            (State.DEFECTIVE, "deep scratch"),
            (State.GOOD, "good"),
            (State.UNLABELLED, None),
        ]
        assert samples[0].mask_at(8) is None
        assert [s.state for s in data.product("data").test.samples] == [State.DEFECTIVE, State.GOOD]

    @pytest.mark.parametrize(("folder", "state"), [("Good", State.GOOD), ("unlabeled", State.UNLABELLED)])
    def test_other_spellings(self, root, folder, state):
        trees.picture(root / "lid" / "good" / "1.png", 1)
        trees.picture(root / "lid" / folder / "2.png", 2)
        assert {s.state for s in open_dataset(str(root)).product("lid").samples if folder in s.key} == {state}

    @pytest.mark.parametrize("folder", ["mask", "OK", "train"])
    def test_folders_that_may_be_no_type(self, root, folder, tmp_path):
        trees.picture(root / "good" / "1.png", 1)
        trees.picture(root / folder / "2.png", 2)
        with pytest.raises(SourceError, match=f"is '{folder}' a type of defect"):
            open_dataset(f"folder:{root}").product("data")
        words = tmp_path / "words.toml"
        words.write_text(f'[words]\n{folder} = "good"\n')
        samples = open_dataset(f"folder:{root}", Options(words=words)).product("data").samples
        assert [s.state for s in samples] == [State.GOOD] * 2

    def test_half_of_the_masks_is_refused(self, root):
        trees.folder(root)
        (root / "lid" / "masks" / "scratch" / "1.png").unlink()
        with pytest.raises(SourceError, match=r"scratch/1\.png: has no mask, though others of lid have"):
            open_dataset(str(root)).product("lid")
