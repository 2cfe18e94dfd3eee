"""Which frames go to the model together."""

from __future__ import annotations

import threading

from pipeline.decode import Limits
from pipeline.inspect import Inspector, Preparer
from pipeline.stream.inbox import Inbox
from pipeline.stream.inspection import Inspection
from pipeline.testing import FakeInfer, encoded, frame, small_pack, surface

PACK = small_pack()


class Told(Inbox):
    """Tells when all that was put has been taken and decoded."""

    def __init__(self) -> None:
        super().__init__(100, 2**30, lambda line: False)
        self.empty = threading.Event()

    def get(self, wait):
        if wait:
            self.empty.set()
        return super().get(wait)

    def give(self, number):
        self.empty.clear()
        self.put(frame(f"f{number}", encoded(surface(number)), camera_id="c"), 0)
        assert self.empty.wait(10)


class Busy(FakeInfer):
    """A model whose first run takes until it is let go."""

    def __init__(self) -> None:
        super().__init__(PACK)
        self.begun, self.free = threading.Event(), threading.Event()

    def infer(self, images, products):
        self.begun.set()
        assert self.free.wait(10)
        return super().infer(images, products)


def test_what_came_while_the_model_was_busy_goes_to_it_at_once():
    inbox, model = Told(), Busy()
    stages = Inspection(
        Preparer(PACK, 64, Limits()),
        Inspector(model, PACK, batch=8),
        fetch=lambda given: given.data,
        ahead=16,
        stop=threading.Event(),
    )
    found = []
    thread = threading.Thread(target=lambda: found.extend(stages(inbox)), daemon=True)
    thread.start()
    inbox.give(0)
    assert model.begun.wait(10)
    for number in (1, 2, 3):  # one after the other, each the only one that waits
        inbox.give(number)
    model.free.set()
    inbox.close()
    thread.join(10)
    assert model.calls == [1, 3]
    assert [result.frame.frame_id for _, result in found] == ["f0", "f1", "f2", "f3"]
