"""People rank in a browser, models learn from it, and people judge the models: one circle, by the real commands."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest

import launch
from accord.feedback.store import Store, now_ms
from accord.protocols import Sampling
from fakes import tiny_llama, tiny_tokenizer
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.visitors import Place, text_of

ANSWERS = ("yes", "yes yes", "no")
CIRCLE = [NEEDED, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::ResourceWarning")]
pytestmark = CIRCLE


def accord(folder, *words: str) -> None:
    done = launch.run(words, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]


def rank_all(desk: Desk) -> int:
    """Rank every task by keyboard: "yes" first, "yes yes" second, "no" failed."""
    keys, count = {"yes": "1", "yes yes": "2", "no": "f"}, 0
    page = desk.open_task()
    while page.query_selector("#task") is not None:
        for text in desk.letters():
            page.keyboard.press("j")
            page.keyboard.press(keys[text])
        page.keyboard.press("Control+Enter")
        desk.submitted()
        page.goto(desk.place.task_page)
        count += 1
    return count


def prefer_all(desk: Desk) -> None:
    """Take the one with more letters y, or a tie."""
    page = desk.open_task()
    while page.query_selector("#task") is not None:
        found = {letter: text.count("y") for text, letter in desk.letters().items()}
        a, b = found.get("A", 0), found.get("B", 0)
        page.keyboard.press("a" if a > b else "b" if b > a else "t")
        page.keyboard.press("Control+Enter")
        desk.submitted()
        page.goto(desk.place.task_page)


def say(folder, prompts: list[str]) -> list[str]:
    """What a trained policy says to each prompt."""
    from accord.rollouts.local import LocalModel

    model = LocalModel.load(str(folder))
    sampling = Sampling(max_new_tokens=6, temperature=1.0, seed=1)
    return [replies[0].text or "(nothing)" for replies in model(prompts, 1, sampling)]


def test_from_people_to_models_and_back(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    place = Place(store)
    place.now = now_ms()
    world = place.open(items=0, people=2, overlap=2)
    for number in range(4):
        world.add_item(f"is {number} a number?", responses=ANSWERS)
    admin = place.someone("admin")
    with launched() as browser, serving(place.app) as base:
        for person in world.people:
            desk = Desk(browser, base, place, person)
            assert rank_all(desk) == 4
            assert desk.complaints == []
            desk.context.close()

    exported = admin.post(f"/admin/campaign/{world.campaign}/export", {"form": "rankings", "unit": "annotator"})
    rows = zipfile.ZipFile(io.BytesIO(exported.content)).read("train.jsonl")
    assert len(rows.splitlines()) == 8
    (tmp_path / "rankings.jsonl").write_bytes(rows)
    data = ["--model", "base", "--data", "rankings.jsonl", "--epochs", "6", "--batch-size", "4"]
    data += ["--learning-rate", "1e-2"]
    accord(tmp_path, "train", "reward", *data, "--out", "reward")
    accord(tmp_path, "train", "dpo", "--loss", "pro", *data, "--out", "pro")
    losses = [json.loads(line).get("loss") for line in (tmp_path / "pro" / "metrics.jsonl").read_text().splitlines()]
    losses = [one for one in losses if one is not None]
    assert losses[-1] < losses[0]

    questions = [f"is {number} a number?" for number in range(4)]
    before, after = say(tmp_path / "base", questions), say(tmp_path / "pro" / "model", questions)
    made = admin.get(f"/admin/project/{world.project}").text
    guideline = re.search(r'name="guideline"><option value="([^"]+)"', made)[1]
    new = {"name": "which is better", "task_type": "winrate", "guideline": guideline, "overlap": "2"}
    campaign = admin.post(f"/admin/project/{world.project}/campaigns", {**new, "lease_minutes": "30"})
    world.campaign = campaign.url.path.rpartition("/")[2]
    pairs = "\n".join(
        json.dumps(
            {
                "id": str(number),
                "prompt": prompt,
                "responses": [{"id": "a", "text": old, "model": "base"}, {"id": "b", "text": new, "model": "pro"}],
            }
        )
        for number, (prompt, old, new) in enumerate(zip(questions, before, after, strict=True))
    )
    address = f"/admin/campaign/{world.campaign}"
    admin.post(f"{address}/import", files={"file": ("pairs.jsonl", pairs)})
    admin.post(f"{address}/change", {"state": "open"})
    with launched() as browser, serving(place.app) as base:
        for person in world.people:
            desk = Desk(browser, base, place, person)
            prefer_all(desk)
            desk.context.close()
    text = re.sub(r"\s+", " ", text_of(admin.get(f"{address}?figures")))
    assert re.search(r"base pro (\d+) % (\d+) % to (\d+) %", text)  # a win rate with its interval
    store.close()
