"""Data preparation: what comes out, what is refused, and that nothing is left behind."""

import gzip
import json
import lzma
import os
import resource
import subprocess
import sys

import numpy
import pytest
import zstandard
from conftest import ROOT
from prepare_request import jsonl, make_model, refused, request_of, shards_of, text
from tandem import documents, prepare, prepare_cost, token_shards

__all__ = ["request_of"]  # a fixture


def test_documents_become_bos_ids_eos(request_of):
    result = prepare.prepare(request_of())
    shards = shards_of(result)
    expected = [[0, *request_of.tokenizer.encode(text(n)).ids, 1] for n in range(60)]
    assert sorted(shards["train"] + shards["validation"]) == sorted(expected)
    kept = [ids for ids in expected if ids in shards["train"]]
    assert shards["train"] == kept, "file order is kept"
    assert 1 <= len(shards["validation"]) < 20
    assert result["train_tokens"] == sum(map(len, shards["train"])) and not result["cached"]
    assert result["documents"] == 60


def test_index_has_the_bytes_of_the_format(request_of):
    folder = prepare.prepare(request_of())["tokens"]
    index = open(folder + "/validation.idx", "rb").read()
    documents_ = token_shards.read_shard(folder + "/validation")
    n = len(documents_)
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert index[9:18] == (1).to_bytes(8, "little") + bytes([8])
    assert index[18:34] == n.to_bytes(8, "little") + (n + 1).to_bytes(8, "little")
    assert len(index) == 34 + 4 * n + 8 * n + 8 * (n + 1)
    offsets = numpy.frombuffer(index, "<i8", n, 34 + 4 * n).tolist()
    ends = numpy.cumsum([2 * len(ids) for ids in documents_]).tolist()
    assert offsets == [0, *ends[:-1]]
    assert os.path.getsize(folder + "/validation.bin") == ends[-1]


def test_wide_vocabularies_get_int32(request_of, tmp_path):
    make_model(tmp_path / "wide", vocab_size=70000)
    folder = prepare.prepare(request_of(tokenizer=str(tmp_path / "wide")))["tokens"]
    assert open(folder + "/train.idx", "rb").read()[17] == 4
    assert token_shards.read_shard(folder + "/train")[0][0] == 0


def test_manifest_names_every_file_with_its_digest(request_of):
    folder = prepare.prepare(request_of(passkey={"prompts": 2, "distances": [8], "length": 160}))[
        "tokens"
    ]
    manifest = json.load(open(folder + "/manifest.json"))
    assert set(manifest["files"]) | {"manifest.json"} == set(os.listdir(folder))
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == token_shards.sha256_of(os.path.join(folder, name))
    assert manifest["tokenizer_sha256"] == token_shards.sha256_of(
        request_of()["tokenizer"] + "/tokenizer.json"
    )
    largest = max(max(ids) for shard in shards_of({"tokens": folder}).values() for ids in shard)
    assert manifest["max_id"] == largest and manifest["vocab_size"] == 400


def test_second_run_is_cached_and_any_change_is_not(request_of):
    first = prepare.prepare(request_of())
    again = prepare.prepare(request_of())
    assert again == {**first, "cached": True}
    os.rename(request_of()["train"][0], request_of.folder / "renamed.jsonl")
    renamed = prepare.prepare(request_of(train=[str(request_of.folder / "renamed.jsonl")]))
    assert renamed["cached"], "the content counts, not the name"
    train = [str(request_of.folder / "renamed.jsonl")]
    for change in ({"validation_fraction": 0.3}, {"max_documents": 50}):
        assert prepare.prepare(request_of(train=train, **change))["tokens"] != first["tokens"]
    (request_of.folder / "renamed.jsonl").write_bytes(jsonl(*range(61)))
    assert not prepare.prepare(request_of(train=train))["cached"]


def test_damaged_cache_is_made_anew(request_of):
    first = prepare.prepare(request_of())
    os.truncate(first["tokens"] + "/train.bin", 10)
    again = prepare.prepare(request_of())
    assert again == first and len(shards_of(again)["train"][0]) > 10


def test_what_a_killed_run_left_is_removed(request_of):
    left = request_of.folder / "cache" / ".0123456789abcdef.1.part"
    left.mkdir(parents=True)
    (left / "train.bin").write_bytes(b"half")
    result = prepare.prepare(request_of())
    assert os.listdir(request_of.folder / "cache") == [os.path.basename(result["tokens"])]


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_every_ending_is_read(request_of, kind, ending):
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[
        ending
    ]
    content = text(7, 90).encode() if kind == ".txt" else jsonl(7)
    path = request_of.folder / f"held{kind}{ending}"
    path.write_bytes(pack(content[:50]) + pack(content[50:]))  # two members or frames
    result = prepare.prepare(request_of(validation=[str(path)]))
    expected = text(7, 90) if kind == ".txt" else text(7)
    assert shards_of(result)["validation"] == [[0, *request_of.tokenizer.encode(expected).ids, 1]]
    assert len(shards_of(result)["train"]) == 60


def test_blank_lines_byte_order_mark_and_empty_texts_are_passed_over(request_of):
    path = request_of.folder / "held.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + jsonl(1) + b'\n  \n{"text": ""}\n' + jsonl(2).rstrip())
    assert len(shards_of(prepare.prepare(request_of(validation=[str(path)])))["validation"]) == 2


def test_max_documents_counts_over_all_train_files(request_of):
    (request_of.folder / "more.jsonl").write_bytes(jsonl(100, 101))
    train = [str(request_of.folder / "more.jsonl"), *request_of()["train"]]
    assert prepare.prepare(request_of(train=train, max_documents=30))["documents"] == 30


def test_hold_out_does_not_depend_on_seed_or_other_documents(request_of):
    one = shards_of(prepare.prepare(request_of()))["validation"]
    (request_of.folder / "train.jsonl").write_bytes(jsonl(*range(80)))
    other = shards_of(prepare.prepare(request_of(seed=5)))["validation"]
    assert all(ids in other for ids in one)


def test_no_bos_where_the_tokenizer_adds_none(request_of, tmp_path):
    make_model(tmp_path / "plain", add_bos_token=False)
    shards = shards_of(prepare.prepare(request_of(tokenizer=str(tmp_path / "plain"))))
    assert shards["train"][0][0] != 0 and shards["train"][0][-1] == 1


def test_passkey_prompts(request_of):
    settings = {"prompts": 4, "distances": [0, 8, 20], "length": 200}
    folder = prepare.prepare(request_of(passkey=settings))["tokens"]
    passkey = json.load(open(folder + "/passkey.json"))
    assert [p["distance"] for p in passkey["prompts"]] == [0] * 4 + [8] * 4 + [20] * 4
    keys = set()
    for prompt in passkey["prompts"]:
        ids, start = prompt["ids"], prompt["answer_start"]
        assert len(ids) == 200 and ids[0] == 0 and start + prompt["answer_length"] == 200
        words = request_of.tokenizer.decode(ids)
        answer = request_of.tokenizer.decode(ids[start:]).strip()
        keys.add(answer)
        assert f"\nThe pass key is {answer}. Remember it. {answer} is the pass key.\n" in words
        assert words.endswith(f"\nWhat is the pass key? The pass key is {answer}")
        between = words.split("is the pass key.\n")[1].split("\nWhat is")[0]
        assert len(request_of.tokenizer.encode(between).ids) == prompt["distance"]
    assert len(keys) > 8
    again = prepare.prepare(request_of(passkey=settings, cache=str(request_of.folder / "cache2")))[
        "tokens"
    ]
    assert open(folder + "/passkey.json").read() == open(again + "/passkey.json").read()
    other = prepare.prepare(request_of(passkey=settings, seed=1))["tokens"]
    assert open(folder + "/passkey.json").read() != open(other + "/passkey.json").read()


BAD_CONTENT = {  # name: (file name, content, what the message says)
    "empty": ("a.jsonl", b"", ["is empty"]),
    "blank": ("a.jsonl", b"\n\n", ["holds no text"]),
    "blank_txt": ("a.txt", b"\xef\xbb\xbf", ["holds no text"]),
    "ending": ("a.csv", b"x", ["unknown ending", ".jsonl"]),
    "json_list": ("alpaca.json", b'[{"text": "a"}]', ["unknown ending", "jq"]),
    "packed_parquet": ("a.parquet.gz", b"PAR1", ["unknown ending"]),
    "not_json": ("a.jsonl", jsonl(1) + b"{'text': 1}\n", ["line 2", "not JSON"]),
    "cut_json": ("a.jsonl", jsonl(1) + b'{"text": "abc', ["line 2", "not JSON"]),
    "deep_json": ("a.jsonl", b"[" * 100000, ["line 1", "not JSON"]),
    "array": ("a.jsonl", b'["text"]\n', ["line 1", "JSON list"]),
    "no_text": ("a.jsonl", b'{"title": "a", "body": "b"}', ["line 1", "body, title", "`messages`"]),
    "text_number": ("a.jsonl", b'{"text": 5}\n', ["line 1", "JSON number", "string"]),
    "text_null": ("a.jsonl", b'{"text": null}\n', ["line 1", "JSON null"]),
    "surrogate": ("a.jsonl", b'{"text": "ab\\ud800"}\n', ["line 1", "surrogate", "character 2"]),
    "utf8_txt": ("a.txt", b"abc\xff", ["byte 3 is 0xff"]),
    "utf8_jsonl": ("a.jsonl", jsonl(1) + b'{"text": "\xff"}\n', ["line 2", "0xff"]),
    "not_gzip": ("a.txt.gz", b"plain text", ["damaged"]),
    "cut_gzip": ("a.jsonl.gz", gzip.compress(jsonl(*range(50)))[:-12], ["damaged or cut short"]),
    "flipped_gzip": ("a.txt.gz", gzip.compress(b"a" * 99)[:-8] + b"12345678", ["damaged"]),
    "not_xz": ("a.txt.xz", b"plain text", ["damaged"]),
    "cut_xz": ("a.jsonl.xz", lzma.compress(jsonl(*range(50)))[:-20], ["damaged or cut short"]),
    "not_zst": ("a.txt.zst", b"plain text", ["damaged"]),
    "cut_zst": ("a.jsonl.zst", zstandard.compress(jsonl(*range(50)))[:-20], ["damaged", "no end"]),
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_files_are_refused(request_of, name, split):
    file_name, content, words = BAD_CONTENT[name]
    path = request_of.folder / file_name
    path.write_bytes(content)
    violations = refused(request_of(**{split: [*request_of()[split], str(path)]}))
    assert [field for field, _ in violations] == [f"data.{split}[{1 if split == 'train' else 0}]"]
    for word in [str(path), *words]:
        assert word in violations[0][1]


def bad_requests(make):
    folder = make.folder
    (folder / "one.txt").write_text(text(1, 500))
    (folder / "short.jsonl").write_bytes(jsonl(1, 2, 3))
    (folder / "tiny.txt").write_text("tiny")
    return {
        "missing_file": (dict(train=[str(folder / "none.jsonl")]), "data.train[0]", "No such file"),
        "folder": (dict(train=[str(folder / "model.txt")]), "data.train[0]", "state.json"),
        "no_files": (dict(train=[]), "data.train", "no file is named"),
        "one_document": (dict(train=[str(folder / "one.txt")]), "data.validation", "single"),
        "few_tokens": (dict(sequence_length=100000), "data.train", "100001"),
        "short_validation": (dict(validation=[str(folder / "tiny.txt")]), "data.validation", "65"),
        "short_hold_out": (
            dict(train=[str(folder / "short.jsonl")], sequence_length=300),
            "data.validation_fraction",
            "needs 301",
        ),
        "far_passkey": (
            dict(passkey={"prompts": 1, "distances": [99], "length": 120}),
            "evaluate.passkey.distances",
            "99 does not",
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "missing_file",
        "folder",
        "no_files",
        "one_document",
        "few_tokens",
        "short_validation",
        "short_hold_out",
        "far_passkey",
    ],
)
def test_impossible_requests_are_refused(request_of, name):
    (request_of.folder / "model.txt").mkdir()
    changes, field, words = bad_requests(request_of)[name]
    violations = refused(request_of(**changes))
    assert violations[0][0] == field and words in violations[0][1]


def break_tokenizer(folder, name):
    if name == "no_tokenizer":
        (folder / "tokenizer.json").unlink()
    elif name == "tokenizer_model":
        (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    elif name == "not_a_tokenizer":
        (folder / "tokenizer.json").write_text('{"a": 1}')
    elif name == "no_config":
        (folder / "config.json").unlink()
    elif name == "bad_config":
        (folder / "config.json").write_text("{")
    elif name == "no_vocab_size":
        (folder / "config.json").write_text("{}")
    elif name == "small_vocab":
        (folder / "config.json").write_text('{"vocab_size": 100}')


@pytest.mark.parametrize(
    "name, words",
    [
        ("no_tokenizer", "has no tokenizer.json"),
        ("tokenizer_model", "AutoTokenizer"),
        ("not_a_tokenizer", "is not a tokenizer"),
        ("no_config", "config.json is not there"),
        ("bad_config", "cannot be read as JSON"),
        ("no_vocab_size", "vocab_size is None"),
        ("small_vocab", "vocab_size is 100; the tokenizer belongs to another model"),
    ],
)
def test_bad_model_folders_are_refused(request_of, name, words):
    break_tokenizer(request_of.folder / "model", name)
    violations = refused(request_of())
    assert violations[0][0] == "model.path" and words in violations[0][1]


def test_everything_wrong_is_said_at_once_and_at_most_five_times_a_file(request_of):
    (request_of.folder / "bad.jsonl").write_bytes(b"{}\n" * 100)
    (request_of.folder / "worse.jsonl").write_bytes(b"[]\n" + jsonl(1))
    violations = refused(
        request_of(
            train=[str(request_of.folder / f) for f in ("bad.jsonl", "train.jsonl", "worse.jsonl")]
        )
    )
    assert [field for field, _ in violations] == ["data.train[0]"] * 5 + ["data.train[2]"]


def run(request, folder, **options):
    (folder / "prepare.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "tandem.prepare", "--request", str(folder / "prepare.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_command_speaks_json_lines(request_of):
    code, lines, _ = run(request_of(), request_of.folder)
    assert code == 0 and [line["event"] for line in lines] == ["progress", "result"]
    assert set(lines[-1]) == {
        "event",
        "tokens",
        "documents",
        "train_tokens",
        "validation_tokens",
        "cached",
    }
    code, lines, _ = run(request_of(train=[str(request_of.folder / "none.txt")]), request_of.folder)
    assert code == 2 and [line["event"] for line in lines] == ["error"]
    assert lines[0]["field"] == "data.train[0]" and "none.txt" in lines[0]["message"]
    bad = [str(request_of.folder / name) for name in ("none.txt", "none.csv")]
    code, lines, _ = run(request_of(train=bad), request_of.folder)
    assert code == 2 and len(lines) == 1, "one event, so that no reader keeps only the last"
    assert lines[0]["field"] == "data.train[0]"
    assert lines[0]["message"].splitlines()[1].startswith("data.train[1]: ")
    code, lines, stderr = run({"version": 1}, request_of.folder)
    assert code == 1 and lines == [] and "sequence_length is None" in stderr


def test_the_command_tells_what_it_expected_and_what_it_took(request_of):
    (request_of.folder / "many.jsonl").write_bytes(jsonl(*range(200)))
    request = request_of(train=[str(request_of.folder / "many.jsonl")])
    _, lines, _ = run(request, request_of.folder)
    cost = json.loads((request_of.folder / prepare_cost.FILE).read_text())
    assert not cost["cached"]
    assert cost["tokens"] == lines[-1]["train_tokens"] + lines[-1]["validation_tokens"]
    expected = cost["estimate"]
    assert expected["tokens"] == pytest.approx(cost["tokens"], rel=0.1)
    assert 0 < expected["seconds"] < 10 and cost["seconds"] > 0
    assert expected["memory_bytes"] > 1e7 and cost["peak_memory_bytes"] > 1e7
    run(request, request_of.folder)
    cost = json.loads((request_of.folder / prepare_cost.FILE).read_text())
    assert cost["cached"] and "estimate" not in cost


def test_the_extent_samples_a_part_of_the_text_and_counts_shards():
    extent = prepare_cost.Extent()
    for _ in range(64):
        extent.add(documents.Document((("ab", True), ("cd", False)), False))
    extent.add(documents.Document((), True, ([1, 2, 3], None)))
    assert (extent.characters, extent.tokens) == (256, 3)
    sampled, characters = extent.sample()
    assert len(sampled) == 4 and characters == 16


def test_a_full_disk_is_said_in_one_line(request_of):
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    code, lines, stderr = run(request_of(), request_of.folder, preexec_fn=no_room)
    assert code == 1 and len(stderr.splitlines()) == 1
    assert f"cannot be written below {request_of.folder / 'cache'}: " in stderr
    assert os.listdir(request_of.folder / "cache") == [], "what was begun is taken away"


def test_a_text_that_is_both_splits_is_faulted_once(request_of):
    """As recipe diagnose asks: it told the text's faults twice, as of data.train first."""
    for name, content in (("short.jsonl", jsonl(1)), ("bad.jsonl", b"no\n")):
        path = request_of.folder / name
        path.write_bytes(content)
        both = dict(train=[str(path)], validation=[str(path)], sequence_length=5000)
        code, lines, _ = run(request_of(**both), request_of.folder)
        assert code == 2 and lines[-1]["field"].startswith("data.validation")
        assert "\n" not in lines[-1]["message"] and "fraction" not in lines[-1]["message"]


def test_large_files_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BLOCK_BYTES", 7)
    (tmp_path / "a.jsonl").write_bytes(jsonl(*range(5)))
    read = list(documents.read_documents(str(tmp_path / "a.jsonl")))
    assert [(kind, document.text) for kind, document in read] == [
        ("document", text(n)) for n in range(5)
    ]
