"""The explorer: what is left out, that like goes with like, and that the page lets nothing out."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from accord.data.collections import ChatLog, read_logs
from accord.feedback.explore import choose, explore, prepare, write_exploration
from accord.feedback.explore.cluster import clusters_of, compare_shares, layout, number_of_clusters
from accord.feedback.explore.embed import sentence_vectors, tf_idf
from accord.feedback.explore.page import render_page
from accord.records import Message

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
TOPICS = {
    "cooking": "bake bread flour yeast oven dough recipe butter kitchen salt",
    "space": "planet orbit rocket moon star telescope galaxy comet astronaut gravity",
    "law": "contract court lawyer tenant judge lease statute appeal verdict clause",
}


def log(text, name="x", **more):
    return ChatLog(id=name, messages=(Message(role="user", content=text),), **more)


def chats(count=20, seed=0):
    draw = random.Random(seed)
    return [
        log(" ".join(draw.sample(words.split(), 6)), f"{topic}{number}")
        for topic, words in TOPICS.items()
        for number in range(count)
    ]


def test_personal_data_is_replaced_counted_and_dropped_where_asked():
    logs = [log("write to ada@example.org or bob@example.org"), log("nothing here", "y")]
    kept = prepare(logs)
    assert kept.logs[0].first == "write to [EMAIL_1] or [EMAIL_2]"
    assert (kept.finds, kept.with_finds, kept.dropped) == ({"EMAIL": 2}, 1, 0)
    dropped = prepare(logs, screen="drop")
    assert [one.id for one in dropped.logs] == ["y"]
    assert dropped.dropped == 1
    assert prepare(logs, screen="off").logs[0].first == logs[0].first


def test_near_duplicates_leave_the_first_and_the_counts_add_up():
    text = " ".join(f"word{n}" for n in range(40))
    logs = [log(text, "a"), log(text + " more", "b"), log(text.upper(), "c"), log("something else entirely", "d")]
    found = prepare(logs)
    assert [one.id for one in found.logs] == ["a", "d"]
    assert found.duplicates == 2
    assert found.largest == ((text, 3),)
    assert found.conversations == len(found.logs) + found.duplicates + found.capped + found.dropped


def test_one_person_counts_so_often_and_those_without_a_name_are_not_one_person():
    logs = [log(f"question number {n} about {n}", f"a{n}", user="ada") for n in range(30)]
    logs += [log(f"unsigned {n} and {n * 7}", f"b{n}") for n in range(30)]
    found = prepare(logs, per_user=5)
    assert Counter(one.user for one in found.logs) == {"ada": 5, None: 30}
    assert found.capped == 25
    turned = prepare(list(reversed(logs)), per_user=5)
    assert {one.id for one in turned.logs} == {one.id for one in found.logs}  # drawn by hash, not by order


@pytest.mark.parametrize(
    ("text", "script"), [("hello", "Latin"), ("привет", "Cyrillic"), ("你好", "CJK"), ("12?", "none")]
)
def test_a_chat_without_a_language_is_told_by_its_script(text, script):
    points = {one.log.id: one for one in explore([*chats(5), log(text, "this")], clusters=3).points}
    assert points["this"].language == f"{script} script"


@pytest.mark.parametrize(("n", "k"), [(2, 2), (10, 4), (800, 20), (100_000, 60)])
def test_number_of_clusters_is_the_root_of_half_within_bounds(n, k):
    assert number_of_clusters(n) == k


def test_topics_come_apart_and_are_named_by_their_words():
    logs = chats()
    texts = [one.first for one in logs]
    cluster_N, clusters = clusters_of(tf_idf(texts).vector_ND, texts, 3)
    topics = [one.id.rstrip("0123456789") for one in logs]
    assert len(set(zip(topics, cluster_N.tolist(), strict=True))) == 3  # a topic is a cluster
    assert [cluster.size for cluster in clusters] == [20, 20, 20]
    for cluster in clusters:
        topic = topics[int(np.flatnonzero(cluster_N == cluster.number)[0])]
        assert set(cluster.terms) <= set(TOPICS[topic].split())
        assert all(cluster_N[place] == cluster.number for place in cluster.medoids)


def test_vectors_have_length_one_even_of_an_empty_text_and_like_ones_are_near():
    vectors = tf_idf(["bake bread in the oven", "bread from the oven, baked", "orbit of the moon", "", "?"]).vector_ND
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@pytest.mark.skipif(find_spec("sentence_transformers") is not None, reason="sentence-transformers is installed")
def test_without_its_library_a_model_is_refused_with_what_to_install():
    with pytest.raises(ValueError, match="pip install sentence-transformers"):
        sentence_vectors(["a"], "some-model")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library and its dependencies
def test_a_real_sentence_model_places_texts(tmp_path):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    (tmp_path / "vocabulary.txt").write_text("\n".join(vocabulary))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(tmp_path / "model")
    BertTokenizerFast(vocab_file=str(tmp_path / "vocabulary.txt")).save_pretrained(tmp_path / "model")
    placed = sentence_vectors(["bake bread", "bake bread", "orbit"], str(tmp_path / "model"))
    likeness = placed.vector_ND @ placed.vector_ND.T
    assert placed.vector_ND.shape == (3, 32)
    assert np.diag(likeness) == pytest.approx(1)
    assert likeness[0, 1] == pytest.approx(1)
    assert likeness[0, 2] < 0.9999


def test_the_map_keeps_neighbours_and_is_the_same_for_a_seed():
    texts = [one.first for one in chats()]
    vectors = tf_idf(texts).vector_ND
    place = layout(vectors)
    assert np.abs(place).max() == pytest.approx(1)
    assert np.array_equal(place, layout(vectors))
    topic = np.repeat([0, 1, 2], 20)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2) + np.eye(60) * 9
    assert (topic[distance.argmin(axis=1)] == topic).mean() > 0.95


def test_points_beyond_the_limit_stand_among_their_neighbours():
    vectors = tf_idf([one.first for one in chats(40)]).vector_ND
    place = layout(vectors, points=60)
    topic = np.repeat([0, 1, 2], 40)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2) + np.eye(120) * 9
    assert (topic[distance.argmin(axis=1)] == topic).mean() > 0.9


@pytest.mark.parametrize(
    ("clusters", "first", "bits"),
    [([0, 1, 0, 1], [1, 1, 0, 0], 0.0), ([0, 0, 1, 1], [1, 1, 0, 0], 1.0), ([0, 0, 0, 1], [1, 1, 0, 0], 0.3113)],
)
def test_jensen_shannon_is_0_for_the_same_spread_and_1_for_none_in_common(clusters, first, bits):
    found = compare_shares(np.array(clusters), np.array(first, dtype=bool), 2)
    assert found.jensen_shannon == pytest.approx(bits, abs=1e-4)


def test_a_second_set_stands_on_the_same_map_and_its_shares_are_its_own():
    logs, second = chats(), [one for one in chats(15, seed=1) if not one.id.startswith("space")]
    found = explore(logs, [replace(one, id=f"second {one.id}") for one in second], clusters=3)
    space = next(c for c in found.clusters if "moon" in TOPICS["space"] and set(c.terms) & set(TOPICS["space"].split()))
    assert found.divergence.shares[space.number] == (pytest.approx(1 / 3), 0.0)
    assert sum(point.compared for point in found.points) == len(found.compared.logs)
    assert 0.1 < found.divergence.jensen_shannon < 0.6


def test_too_few_conversations_are_refused_with_the_number():
    with pytest.raises(ValueError, match="1 conversations are left of 30; expected ten or more"):
        explore([log("the same text each time", str(n)) for n in range(30)])


def test_a_choice_follows_the_shares_leaves_no_cluster_out_and_is_the_same_again():
    found = explore([*chats(30), *[one for one in chats(90, seed=3) if one.id.startswith("law")]], clusters=3)
    drawn = choose(found.points, 12)
    by_cluster = Counter(point.cluster for point in drawn)
    sizes = {cluster.number: cluster.size for cluster in found.clusters}
    assert len(drawn) == 12
    assert by_cluster[0] == max(by_cluster.values()) >= 6
    assert set(by_cluster) == set(sizes)
    assert choose(found.points, 12) == drawn
    assert {p.log.id for p in choose(found.points, 12, seed=1)} != {p.log.id for p in drawn}
    assert len(choose(found.points, 2)) == 2


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & 'quoted'"


def test_the_page_stands_alone_and_no_prompt_can_leave_its_block_of_data(tmp_path):
    logs = [*chats(), log(HOSTILE, "h"), log(HOSTILE + " again and again and once more", HOSTILE)]
    paths = write_exploration(explore(logs, clusters=3), tmp_path, sources=[HOSTILE])
    page = paths["explore.html"].read_text()
    assert len(re.findall(r"<script", page)) == 2  # the data and ours
    assert "<img" not in page
    assert "script-src &#39;sha256-" in page
    assert not re.search(r"""(?:src|href)=["']?http""", page)
    data = json.loads(re.search(r'id="explore-data">(.*?)</script>', page, re.S)[1])
    assert [point[10] for point in data["points"]].count(HOSTILE) == 1
    rows = [json.loads(line) for line in paths["conversations.jsonl"].read_text().splitlines()]
    assert len(rows) == len(logs) == len(data["points"])
    figures = json.loads(paths["explore.json"].read_text())
    assert sum(cluster["size"] for cluster in figures["clusters"]) == len(logs)


def test_the_page_is_the_same_for_the_same_logs_but_for_its_date():
    def page():
        return re.sub(r"written [^<]*", "", render_page(explore(chats(), clusters=3)))

    assert page() == page()


@pytest.mark.skipif(not SHARED.exists(), reason="needs the data sets beside the repository")
def test_real_questions_are_farther_from_a_task_collection_than_from_each_other():
    asked = [one.first[:300] for one in read_logs([SHARED / "chat_bench_questions/arena_hard.jsonl"]).logs[:300]]
    with gzip.open(SHARED / "p3_t0_sample/p3_t0.jsonl.gz", "rt") as file:
        tasks = [json.loads(line)["prompt"][:300] for line in list(file)[::70]]
    of_questions, of_tasks = (
        compare_shares(clusters_of(tf_idf([*asked[::2], *second]).vector_ND, [*asked[::2], *second], 8)[0],
                       np.arange(len(asked[::2]) + len(second)) < len(asked[::2]), 8).jensen_shannon
        for second in (asked[1::2], tasks)
    )  # fmt: skip
    assert of_tasks > 4 * of_questions
    assert of_questions < 0.1
