"""Needle, associative recall and key-value prompts: where the answer stands and how far it is."""

import json
import re

import pytest
from prepare_request import refused, request_of
from tandem import prepare

__all__ = ["request_of"]  # a fixture


def prompts_of(make, **settings):
    folder = prepare.prepare(make(**settings))["tokens"]
    content = json.load(open(folder + "/long_range.json"))
    assert content["version"] == 1
    for prompt in content["prompts"]:
        assert prompt["length"] == len(prompt["ids"]) and prompt["ids"][0] == 0
        for answer in prompt["answers"]:
            assert 1 <= answer["start"] <= prompt["length"] - answer["length"]
    return content["prompts"]


def words(make, ids):
    return make.tokenizer.decode(ids)


def answers_of(make, prompt):
    return [
        words(make, prompt["ids"][a["start"] : a["start"] + a["length"]]).strip()
        for a in prompt["answers"]
    ]


def tokens(make, text):
    return len(make.tokenizer.encode(text).ids)


def test_needles_by_distance_and_by_depth(request_of):
    prompts = prompts_of(
        request_of,
        needle={"prompts": 3, "distances": [0, 40], "depths": [0, 0.5, 1], "lengths": [300, 400]},
    )
    assert [p["length"] for p in prompts] == [300] * 15 + [400] * 15
    found = re.compile(
        r"\nThe special number of (\w+) is (\d+)\. Remember it\.\n(.*)"
        r"\nWhat is the special number of (\w+)\? The special number of (\w+) is (\d+)$",
        re.DOTALL,
    )
    for index, prompt in enumerate(prompts):
        key, number, between, *asked = found.search(words(request_of, prompt["ids"])).groups()
        assert asked == [key, key, number] and answers_of(request_of, prompt) == [number]
        (answer,) = prompt["answers"]
        assert tokens(request_of, between) == answer["distance"]
        expected = [0, 40, None, None, None][index % 15 // 3]
        assert expected is None or answer["distance"] == expected
    depths = [p["depth"] for p in prompts[6:15:3]]
    assert depths[0] == 0 and depths[2] == 1 and abs(depths[1] - 0.5) < 0.01
    assert words(request_of, prompts[6]["ids"]).startswith("\nThe special number")


@pytest.mark.parametrize("length", [900, 2000])
def test_every_fact_is_asked_for_in_another_order(request_of, length):
    prompts = prompts_of(request_of, recall={"prompts": 3, "facts": [2, 8], "length": length})
    assert [p["facts"] for p in prompts] == [2] * 3 + [8] * 3
    moved = 0
    for prompt in prompts:
        whole = words(request_of, prompt["ids"])
        told = re.findall(r" The (\w+) of ([\w ]+) is (\d+)\.", whole)
        asked = re.findall(r" What is the (\w+) of ([\w ]+)\? (\d+)\.", whole)
        assert len(told) == prompt["facts"] and sorted(told) == sorted(asked)
        assert len({attribute for attribute, _, _ in told}) == 1
        assert answers_of(request_of, prompt) == [number for _, _, number in asked]
        moved += told != asked
        end = prompt["length"]
        assert length - 2 * prompt["facts"] <= end <= length
        for (attribute, name, number), answer in zip(asked, prompt["answers"]):
            fact = f" The {attribute} of {name} is {number}."
            question = f" What is the {attribute} of {name}?"
            begin = whole.index(fact) + len(fact)
            assert answer["distance"] == tokens(request_of, whole[begin : whole.index(question)])
    assert moved >= 4


def test_facts_stand_side_by_side_without_room(request_of):
    (prompt,) = prompts_of(request_of, recall={"prompts": 1, "facts": [3], "length": 175})
    assert words(request_of, prompt["ids"]).count(". The ") == 2 and prompt["length"] <= 175


def test_many_facts_have_different_names(request_of):
    (prompt,) = prompts_of(request_of, recall={"prompts": 1, "facts": [300], "length": 40000})
    names = re.findall(r" What is the \w+ of ([\w ]+)\?", words(request_of, prompt["ids"]))
    assert len(set(names)) == 300


def test_one_pair_of_many_is_asked_for(request_of):
    prompts = prompts_of(request_of, key_value={"prompts": 4, "pairs": [2, 9], "length": 900})
    for prompt in prompts:
        whole = words(request_of, prompt["ids"])
        pairs = json.loads(whole[whole.index("{") : whole.index("}") + 1])
        assert len(pairs) == prompt["pairs"]
        key, value = re.search(r'Key: "(\w+)"\nCorresponding value: "(\w+)"\.$', whole).groups()
        assert pairs[key] == value and answers_of(request_of, prompt) == [f'"{value}"']
        pair = f'"{key}": "{value}"'
        between = whole[whole.index(pair) + len(pair) : whole.index("Key:")]
        slack = prompt["answers"][0]["distance"] - tokens(request_of, between)
        assert slack in (-2, -3), "what ends the line belongs to the pair"
    assert len({answers_of(request_of, p)[0] for p in prompts}) == 8


SETTINGS = {
    "needle": {"prompts": 2, "distances": [5]},
    "recall": {"prompts": 2, "facts": [2]},
    "key_value": {"prompts": 2, "pairs": [1]},
}


def test_all_is_drawn_from_the_seed(request_of):
    make = {"sequence_length": 300, "validation_fraction": 0.4, **SETTINGS}
    first = prompts_of(request_of, **make)
    again = prompts_of(request_of, cache=str(request_of.folder / "cache2"), **make)
    assert first == again and first != prompts_of(request_of, seed=1, **make)
    assert len({json.dumps(prompt) for prompt in first}) == 6
    assert [p["kind"] for p in first] == ["needle"] * 2 + ["recall"] * 2 + ["key_value"] * 2
    assert first[0]["length"] == 300, "without a length: data.sequence_length"
    alone = prompts_of(request_of, **{**make, "needle": None, "recall": None})
    assert alone == first[4:], "prompts do not depend on the other kinds"


@pytest.mark.parametrize(
    "settings, field, number",
    [
        ({"needle": {"prompts": 1, "distances": [99], "length": 200}}, "needle.distances", "99"),
        ({"needle": {"prompts": 1, "depths": [0.5], "length": 50}}, "needle.depths", "50"),
        ({"recall": {"prompts": 1, "facts": [20], "length": 200}}, "recall.facts", "200"),
        ({"recall": {"prompts": 1, "facts": [9999], "length": 200}}, "recall.facts", "9999"),
        ({"key_value": {"prompts": 1, "pairs": [20], "length": 200}}, "key_value.pairs", "200"),
    ],
)
def test_what_does_not_fit_is_refused(request_of, settings, field, number):
    violations = refused(request_of(**settings))
    assert violations[0][0] == f"evaluate.{field}" and number in violations[0][1]


def test_nothing_is_written_that_is_not_asked_for(request_of):
    folder = prepare.prepare(request_of(recall={"prompts": 0, "facts": [2]}))["tokens"]
    assert "long_range.json" not in json.load(open(folder + "/manifest.json"))["files"]
