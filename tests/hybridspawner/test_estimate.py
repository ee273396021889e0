"""Estimates: one question for all who would ask the same, nobody waits long, and a failure is an unknown start."""

import asyncio
from datetime import datetime, timedelta

from hybridspawner.estimate import EstimateBoard, Question
from hybridspawner.site import Resources

QUESTION = Question("alps", Resources(), "01:00:00", "normal", None, None)


class Scheduler:
    def __init__(self, minutes: float | None = 25) -> None:
        self.asked, self.minutes, self.answer = 0, minutes, asyncio.Event()
        self.answer.set()

    async def ask(self) -> datetime | None:
        self.asked += 1
        await self.answer.wait()
        return datetime.now() + timedelta(minutes=self.minutes) if self.minutes is not None else None


async def test_many_pages_cost_one_question() -> None:
    board, scheduler = EstimateBoard(), Scheduler()
    estimates = await asyncio.gather(*(board.read(QUESTION, scheduler.ask) for _ in range(50)))
    estimates.append(await board.read(QUESTION, scheduler.ask))
    assert scheduler.asked == 1 and all(e is not None and 1490 < e.starts_in <= 1500 for e in estimates)


async def test_another_shape_is_another_question() -> None:
    board, scheduler = EstimateBoard(), Scheduler()
    for account in ("g1", "g2", "g1"):
        await board.read(Question("alps", Resources(gpus=1), "01:00:00", None, None, account), scheduler.ask)
    assert scheduler.asked == 2


async def test_a_slow_scheduler_blocks_nobody_and_its_late_answer_is_kept() -> None:
    board, scheduler = EstimateBoard(patience=0.01), Scheduler()
    scheduler.answer.clear()
    assert await board.read(QUESTION, scheduler.ask) is None
    assert await board.read(QUESTION, scheduler.ask) is None
    scheduler.answer.set()
    await asyncio.sleep(0)
    board._patience = 5
    assert await board.read(QUESTION, scheduler.ask) is not None and scheduler.asked == 1


async def test_silence_refusal_and_no_answer_are_unknown_and_not_asked_again_at_once() -> None:
    asked = 0

    async def refuse() -> datetime:
        nonlocal asked
        asked += 1
        raise OSError("refused")

    board = EstimateBoard()
    assert await board.read(QUESTION, refuse) is None and await board.read(QUESTION, refuse) is None
    assert asked == 1
    scheduler = Scheduler(None)
    assert await EstimateBoard().read(QUESTION, scheduler.ask) is None


async def test_a_start_in_the_past_is_a_start_now() -> None:
    estimate = await EstimateBoard().read(QUESTION, Scheduler(-10).ask)
    assert estimate is not None and estimate.starts_in == 0


async def test_the_board_is_bounded_and_asks_few_at_a_time() -> None:
    board, running, most = EstimateBoard(size=10, at_a_time=2), 0, 0

    async def ask() -> datetime:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return datetime.now()

    questions = [Question("alps", Resources(), f"{n:02}:00:00", None, None, None) for n in range(1, 60)]
    for chunk in (questions[:10], questions[10:20], questions):
        await asyncio.gather(*(board.read(q, ask) for q in chunk))
    assert most == 2 and len(board._last) == 10 and not board._running
