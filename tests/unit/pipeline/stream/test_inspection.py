"""Which frames go to the model together, and what runs beside it."""

from __future__ import annotations

import threading

from dapo.judge import judge
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


def stages_of(model, batch=8):
    return Inspection(
        Preparer(model, Limits()),
        Inspector(model, batch=batch),
        fetch=lambda given: given.data,
        ahead=16,
        stop=threading.Event(),
    )


def test_what_came_while_the_model_was_busy_goes_to_it_at_once():
    inbox, model = Told(), Busy()
    stages = stages_of(model)
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


def test_the_model_does_not_wait_for_a_judgement(monkeypatch):
    inbox, model, asked_again = Told(), FakeInfer(PACK), threading.Event()

    def infer(images, products):
        if model.calls:
            asked_again.set()
        return FakeInfer.infer(model, images, products)

    def slow(*arguments):
        assert asked_again.wait(10), "the model stood while a frame was judged"
        return judge(*arguments)

    stages = stages_of(model, batch=2)
    monkeypatch.setattr(model, "infer", infer)
    monkeypatch.setattr("pipeline.inspect.judge", slow)
    for number in range(4):
        inbox.put(frame(f"f{number}", encoded(surface(number)), camera_id="c"), 0)
    inbox.close()
    found = [result for _, result in stages(inbox)]
    assert [(result.frame.frame_id, result.error) for result in found] == [(f"f{n}", None) for n in range(4)]
