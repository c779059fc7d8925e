"""Linear models of text: they learn, and come back from disk as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.pipelines.linear_text import LinearText

pytest.importorskip("sklearn")

KIND = [f"thank you dear friend number {i} you are kind" for i in range(30)]
RUDE = [f"you stupid fool number {i} go away idiot" for i in range(30)]


def fitted(objective: str = "ridge") -> LinearText:
    return LinearText.fit([*KIND, *RUDE], [0.05] * 30 + [0.95] * 30, objective, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["ridge", "logistic"])
def test_it_learns_the_difference(objective: str) -> None:
    model = LinearText.fit([*KIND, *RUDE], [0.0] * 30 + [1.0] * 30, objective, 1.0)  # type: ignore[arg-type]
    kind, rude = model(["what a kind friend you are", "stupid idiot"])
    assert kind < 0.3 < 0.7 < rude
    assert model([]) == []


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    model = fitted()
    model.card["about"] = "a test"
    model.save(tmp_path, "tone")
    again = LinearText.load(tmp_path, "tone")
    texts = ["hello idiot", "dear friend", "", "ünïcode \n text"]
    assert again(texts) == pytest.approx(model(texts), abs=1e-12)
    assert again.hash == model.hash
    assert again.card["about"] == "a test"


def test_other_numbers_have_another_hash() -> None:
    assert fitted().hash == fitted().hash
    assert fitted().hash != LinearText.fit([*KIND, *RUDE], [0.1] * 30 + [0.9] * 30, "ridge", 1.0).hash


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tone\.npz"):
        LinearText.load(tmp_path, "tone")
    fitted().save(tmp_path, "tone")
    (tmp_path / "tone.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="train it again"):
        LinearText.load(tmp_path, "tone")
