"""Suites: the requests that prepare makes of them, and the converters' prompts."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest
from prepare_request import make_model, refused, request_of, text
from tandem import convert_suite, prepare, token_shards

__all__ = ["request_of"]  # a fixture


def write(make, name, header, *items):
    path = make.folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *items)))
    return str(path)


def prepared(make, paths, **changes):
    folder = prepare.prepare(make(suites=paths, **changes))["tokens"]
    return json.load(open(folder + "/suites.json")), token_shards.read_shard(folder + "/suites")


CHOICE = {"context": "Question: why?\nAnswer:", "choices": ["no", "yes, of course"], "answer": 1}


def ids_of(make, words):
    return make.tokenizer.encode(words).ids


def test_choices_follow_the_context_behind_a_blank(request_of):
    path = write(request_of, "a.jsonl", {"suite": "a", "metric": "acc_norm"}, CHOICE)
    for bos, begin in (("model", [0]), ("none", [])):
        described, requests = prepared(request_of, [path], bos=bos)
        assert described["version"] == 1 and described["bos"] == bos
        suite = described["suites"][0]
        assert (suite["name"], suite["metric"]) == ("a", "acc_norm")
        start = len(begin) + len(CHOICE["context"])
        assert suite["items"] == [
            {"first": 0, "starts": [start, start], "lengths": [2, 14], "answer": 1}
        ]
        for ids, choice in zip(requests, CHOICE["choices"]):
            assert ids == begin + ids_of(request_of, CHOICE["context"] + " " + choice)
            assert request_of.tokenizer.decode(ids[start:]) == " " + choice


def test_shared_continuation_and_blanks_at_the_contexts_end(request_of):
    item = {"contexts": ["The cat ", "The dog"], "continuation": "sat.", "answer": 0}
    path = write(request_of, "w.jsonl", {"suite": "w", "metric": "acc"}, item)
    described, requests = prepared(request_of, [path])
    entry = described["suites"][0]["items"][0]
    scored = [
        request_of.tokenizer.decode(ids[start:]) for ids, start in zip(requests, entry["starts"])
    ]
    assert scored == ["  sat.", " sat."], "blanks of the context belong to the continuation"


def test_an_empty_context_is_one_bos(request_of, tmp_path):
    item = {"context": "", "continuation": "word"}
    path = write(request_of, "l.jsonl", {"suite": "l", "metric": "lambada"}, item)
    for bos in ("model", "none"):
        described, requests = prepared(request_of, [path], bos=bos)
        assert requests == [[0, *ids_of(request_of, "word")]]
        assert described["suites"][0]["items"][0]["starts"] == [1]
    item = {"context": "", "continuation": "<s>word"}
    path = write(request_of, "m.jsonl", {"suite": "m", "metric": "lambada"}, item)
    assert prepared(request_of, [path])[1] == [[0, *ids_of(request_of, "word")]]


def test_a_text_that_begins_with_bos_gets_no_second_one(request_of):
    item = {"context": "<s>abc", "continuation": " d"}
    path = write(request_of, "l.jsonl", {"suite": "l", "metric": "exact"}, item)
    assert prepared(request_of, [path])[1] == [[0, *ids_of(request_of, "abc d")]]


@pytest.fixture
def short_request(request_of, tmp_path):
    """A model that reads at most 16 tokens."""
    make_model(tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    config["max_position_embeddings"] = 16
    (tmp_path / "short" / "config.json").write_text(json.dumps(config))

    def make(**changes):
        return request_of(tokenizer=str(tmp_path / "short"), **changes)

    make.tokenizer, make.folder = request_of.tokenizer, request_of.folder
    return make


def test_long_requests_are_cut_from_the_left(short_request):
    item = {"context": "abcdefghijklmnopqrstuvwxyz", "continuation": " 123"}
    path = write(short_request, "l.jsonl", {"suite": "l", "metric": "exact"}, item)
    described, requests = prepared(short_request, [path])
    assert requests == [ids_of(short_request, "nopqrstuvwxyz 123")] and len(requests[0]) == 17
    assert described["suites"][0]["items"][0]["starts"] == [13] and described["max_length"] == 16


@pytest.mark.parametrize("bos", ["model", "none"])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 32, 33, 50])
def test_rolling_windows_score_each_token_once(short_request, bos, count):
    words = ("abcdefghij" * 9)[:count]
    path = write(short_request, "p.jsonl", {"suite": "p", "metric": "perplexity"}, {"text": words})
    described, requests = prepared(short_request, [path], bos=bos)
    entry = described["suites"][0]["items"][0]
    scored = [t for ids, start in zip(requests, entry["starts"]) for t in ids[start:]]
    assert scored == ([0] if bos == "model" else []) + ids_of(short_request, words)
    assert all(len(ids) <= 17 for ids in requests) and requests[0][0] == 0
    assert (entry["words"], entry["bytes"]) == (1, count)


def test_limits_count_in_each_group_and_groups_stay_with_their_items(request_of):
    items = [{**CHOICE, "group": group} for group in "aabbbac"]
    path = write(request_of, "g.jsonl", {"suite": "g", "metric": "acc"}, *items)
    described, requests = prepared(request_of, [path], suite_items=2)
    assert [item["group"] for item in described["suites"][0]["items"]] == list("aabbc")
    assert len(requests) == 10 and described["suites"][0]["items"][-1]["first"] == 8


def test_suites_follow_one_another_and_count_for_the_cache(request_of):
    a = write(request_of, "a.jsonl", {"suite": "a", "metric": "acc"}, *[CHOICE] * 300)
    b = write(request_of, "b.jsonl", {"suite": "b", "metric": "acc"}, CHOICE)
    described, requests = prepared(request_of, [a, b])
    assert [len(suite["items"]) for suite in described["suites"]] == [300, 1]
    assert described["suites"][1]["items"][0]["first"] == 600 and len(requests) == 602
    manifest = prepare.prepare(request_of(suites=[a, b]))
    assert manifest["cached"]
    write(request_of, "b.jsonl", {"suite": "b", "metric": "acc"}, CHOICE, CHOICE)
    assert not prepare.prepare(request_of(suites=[a, b]))["cached"]


HEADER = {"suite": "s", "metric": "acc"}
BAD_SUITES = {
    "no_header": ([CHOICE], "the first line must be"),
    "metric": ([{"suite": "s", "metric": "f1"}, CHOICE], "acc | acc_norm"),
    "no_items": ([HEADER], "no item"),
    "one_choice": ([HEADER, {**CHOICE, "choices": ["a"], "answer": 0}], "two or more"),
    "empty_choice": ([HEADER, {**CHOICE, "choices": ["a", ""]}], "two or more"),
    "answer": ([HEADER, {**CHOICE, "answer": 2}], "`answer` is 2; must be in [0, 2)"),
    "true": ([HEADER, {**CHOICE, "answer": True}], "`answer` is True"),
    "no_context": ([HEADER, {"choices": ["a", "b"], "answer": 0}], "`context` is None"),
    "numbers": ([HEADER, {**CHOICE, "choices": [1, 2]}], "`choices` must be a list of strings"),
    "half_grouped": ([HEADER, CHOICE, {**CHOICE, "group": "a"}], "with and without `group`"),
    "list": ([HEADER, [1]], "line 2: a JSON list"),
    "blank_context": ([HEADER, {**CHOICE, "context": " \n"}], None),
}


@pytest.mark.parametrize("name", BAD_SUITES)
def test_bad_suites_are_refused(request_of, name):
    content, words = BAD_SUITES[name]
    path = write(request_of, "bad.jsonl", *content)
    if words is None:
        assert "context is blank" in refused(request_of(suites=[path], bos="none"))[0][1]
        return
    violations = refused(request_of(suites=[path]))
    assert violations[0][0] == "evaluate.suites[0]" and words in violations[0][1]
    assert "bad.jsonl" in violations[0][1]


def test_other_faults_of_suites(request_of, short_request):
    a = write(request_of, "a.jsonl", HEADER, CHOICE)
    b = write(request_of, "b.jsonl", HEADER, CHOICE)
    assert "second suite of the name s" in refused(request_of(suites=[a, b]))[0][1]
    assert "No such file" in refused(request_of(suites=[a + "x.jsonl"]))[0][1]
    (request_of.folder / "s.txt").write_text("a")
    assert "convert_suite" in refused(request_of(suites=[str(request_of.folder / "s.txt")]))[0][1]
    c = write(request_of, "c.jsonl", HEADER, {**CHOICE, "choices": ["a" * 20, "b"]})
    assert "has 21 tokens; the model reads 16" in refused(short_request(suites=[c]))[0][1]


# ---------------------------------------------------------------- converters


def converted(capsys, name, *paths):
    assert convert_suite.main([name, *map(str, paths)]) == 0
    header, *items = map(json.loads, capsys.readouterr().out.splitlines())
    assert header["suite"] == name
    return header["metric"], items


def rows(folder, name, *records):
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_piqa(tmp_path, capsys):
    path = rows(tmp_path, "valid.jsonl", {"goal": "Dry it", "sol1": "sun", "sol2": "rain"})
    (tmp_path / "valid-labels.lst").write_text("0\n")
    expected = {"context": "Question: Dry it\nAnswer:", "choices": ["sun", "rain"], "answer": 0}
    assert converted(capsys, "piqa", path, tmp_path / "valid-labels.lst") == ("acc", [expected])
    path = rows(tmp_path, "q.jsonl", {"query": "Dry it", "choices": ["sun", "rain"], "gold": 0})
    assert converted(capsys, "piqa", path) == ("acc", [expected])


def test_arc_and_openbookqa_in_both_published_forms(tmp_path, capsys):
    choices = [{"text": "one", "label": "1"}, {"text": "two", "label": "2"}]
    original = {"id": "x", "question": {"stem": "How many?", "choices": choices}, "answerKey": "2"}
    columns = {"text": ["one", "two"], "label": ["1", "2"]}
    hub = {"question": "How many?", "choices": columns, "answerKey": "2"}
    book = {"question_stem": "How many?", "choices": columns, "answerKey": "2 "}
    path = rows(tmp_path, "arc.jsonl", original, hub)
    for name, metric in (("arc_easy", "acc"), ("arc_challenge", "acc_norm")):
        found, items = converted(capsys, name, path)
        assert found == metric and items == [
            {"context": "Question: How many?\nAnswer:", "choices": ["one", "two"], "answer": 1}
        ] * 2  # fmt: skip
    path = rows(tmp_path, "book.jsonl", original, book)
    found, items = converted(capsys, "openbookqa", path)
    assert found == "acc_norm" and [item["context"] for item in items] == ["How many?"] * 2
    assert [item["answer"] for item in items] == [1, 1]


def test_hellaswag_is_cleaned_of_wikihows_brackets(tmp_path, capsys):
    row = {
        "activity_label": "Baking", "ctx_a": "[header] How to bake [title] Take flour.",
        "ctx_b": "then you", "endings": ["mix [substeps] it  well.", "eat."], "label": 1,
    }  # fmt: skip
    metric, items = converted(capsys, "hellaswag", rows(tmp_path, "h.jsonl", row))
    assert metric == "acc_norm"
    assert items == [
        {
            "context": "Baking: How to bake. Take flour. Then you",
            "choices": ["mix it well.", "eat."],
            "answer": 1,
        }
    ]


def test_winogrande_scores_what_follows_the_blank(tmp_path, capsys):
    row = {"sentence": "Ann met Eve since _ was late.", "option1": "Ann", "option2": "Eve"}
    path = rows(tmp_path, "dev.jsonl", {**row, "answer": "2"})
    expected = {
        "contexts": ["Ann met Eve since Ann", "Ann met Eve since Eve"],
        "continuation": "was late.",
        "answer": 1,
    }
    assert converted(capsys, "winogrande", path) == ("acc", [expected])
    path = rows(tmp_path, "test.jsonl", row)
    (tmp_path / "dev-labels.lst").write_text("2\n")
    assert converted(capsys, "winogrande", path, tmp_path / "dev-labels.lst")[1] == [expected]


def test_boolq_and_lambada(tmp_path, capsys):
    path = rows(tmp_path, "b.jsonl", {"passage": "P.", "question": "is it", "label": True})
    assert converted(capsys, "boolq", path) == (
        "acc",
        [{"context": "P.\nQuestion: is it?\nAnswer:", "choices": ["no", "yes"], "answer": 1}],
    )
    path = rows(tmp_path, "l.jsonl", {"text": "She took  the last train"})
    assert converted(capsys, "lambada", path) == (
        "lambada",
        [{"context": "She took  the last", "continuation": " train"}],
    )


def write_csv(path, *records):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(records)
    return path


def test_mmlu_has_five_examples_of_the_subject(tmp_path, capsys):
    examples = [[f"Q{i}, ", "a", "b", "c", "d", "ABCDA"[i]] for i in range(5)]
    dev = write_csv(tmp_path / "dev" / "high_school_physics_dev.csv", *examples, ["x"] * 5 + ["A"])
    test = write_csv(
        tmp_path / "test" / "high_school_physics_test.csv", ['"What"\nnow?', *"wxyz", "D"]
    )
    metric, items = converted(capsys, "mmlu", dev, test)
    head = (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
    )
    for i in range(5):
        head += f"Q{i},\nA. a\nB. b\nC. c\nD. d\nAnswer: {'ABCDA'[i]}\n\n"
    assert metric == "acc" and items == [
        {
            "context": head + '"What"\nnow?\nA. w\nB. x\nC. y\nD. z\nAnswer:',
            "choices": ["A", "B", "C", "D"],
            "answer": 3,
            "group": "high_school_physics",
        }
    ]


def test_mmlu_as_the_hub_has_it(tmp_path, capsys):
    row = {"question": "Why?", "subject": "anatomy", "choices": list("abcd"), "answer": 2}
    dev, test = rows(tmp_path, "dev.jsonl", *[row] * 5), rows(tmp_path, "test.jsonl", row)
    _, items = converted(capsys, "mmlu", dev, test)
    assert items[0]["answer"] == 2 and items[0]["context"].count("Answer: C\n\n") == 5


@pytest.mark.parametrize(
    "name, files, words",
    [
        ("piqa", {"a.jsonl": '{"goal": "a"}\n'}, "line 1 is not as piqa is published"),
        ("piqa", {"a.jsonl": "no\n"}, "a.jsonl, line 1: not JSON"),
        ("lambada", {"a.jsonl": '{"text": "a b"}\n{"text": bad\n'}, "a.jsonl, line 2: not JSON"),
        ("lambada", {"a.jsonl": b"\x7fELF\xd0\x01\n"}, "a.jsonl, line 1: not UTF-8"),
        ("lambada", {"a.jsonl": ""}, "there is no question of lambada"),
        ("lambada", {"a.jsonl": "[1]\n"}, "line 1 is not as lambada is published"),
        ("piqa", {"a.jsonl": '{"goal": "g", "sol1": "a", "sol2": "b"}\n'}, "valid-labels.lst"),
        ("piqa", {"a.jsonl": '{"goal": "g", "sol1": "a", "sol2": "b", "label": 7}\n'},
         "`answer` is 7; must be in [0, 2)"),
        ("winogrande", {"a.jsonl": '{"sentence": "_ b", "option1": "x", "option2": "y"}\n'},
         "dev-labels.lst"),
        ("piqa", {"a.jsonl": "{}\n", "a.lst": b"\xd0\n"}, "a.lst cannot be read"),
        ("mmlu", {"anatomy_dev.csv": "q,a,b,c,d,A\n" * 5}, "there is no question of mmlu"),
        ("mmlu", {"a.jsonl": '{"question": "q"}\n'}, "a.jsonl, line 1 is not as mmlu"),
        ("piqa", {"a.csv": "x"}, "unknown ending"),
        ("boolq", {"a.jsonl": '{"question": "q", "answer": true, "passage": "p"}\n'},
         "no 'label'; take SuperGLUE's"),
        ("mmlu", {"anatomy_test.csv": "q,a,b,c,d,A\n"}, "anatomy has 0 examples"),
        ("mmlu", {"anatomy_test.csv": "q,a,b,c,A\n"}, "row 1 is not"),
        ("winogrande", {"a.jsonl": '{"sentence": "_ b", "option1": "x", "option2": "y"}\n',
                        "a.lst": "1\n2\n"}, "2 labels for 1 questions"),
    ],
)  # fmt: skip
def test_files_that_are_not_as_published(tmp_path, capsys, name, files, words):
    for file, content in files.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert convert_suite.main([name, *(str(tmp_path / file) for file in files)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    path = rows(tmp_path, "a.jsonl", {"text": "a b"})
    command = [sys.executable, "-m", "tandem.convert_suite", "lambada", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_converted_suite_is_prepared(request_of, capsys):
    path = rows(request_of.folder, "l.jsonl", {"text": text(1)}, {"text": text(2)})
    assert convert_suite.main(["lambada", str(path)]) == 0
    suite = request_of.folder / "lambada.jsonl"
    suite.write_text(capsys.readouterr().out)
    described, requests = prepared(request_of, [str(suite)])
    for ids, item in zip(requests, described["suites"][0]["items"]):
        word = request_of.tokenizer.decode(ids[item["starts"][0] :])
        assert re.fullmatch(r" \w+", word) and item["lengths"] == [len(word)]
