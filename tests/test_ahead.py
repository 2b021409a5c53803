"""python -m pytest tests/test_ahead.py"""

import threading

import torch

from isoflop.lm.ahead import Ahead


def test_batches_are_those_of_their_steps_and_the_next_one_is_made_meanwhile() -> None:
    made, asked = list[int](), threading.Event()

    def cut(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(step)
        if step == 4:
            asked.set()
        return torch.tensor([step]), torch.tensor([-step])

    ahead = Ahead(cut, pin=False)
    assert [ahead.take(step)[0].item() for step in (2, 3)] == [2, 3]
    assert asked.wait(10), "the batch of step 4 is made before anybody asks"
    assert ahead.take(9)[1].item() == -9  # a resumed run begins elsewhere
    assert ahead.take(10)[0].item() == 10
    assert made[:5] == [2, 3, 4, 9, 10]
