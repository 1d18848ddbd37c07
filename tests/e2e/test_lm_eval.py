"""The suites' scores are lm-evaluation-harness's: same items, same model, through the exported model and through the base.

A choice task, a last-word task and a rolling perplexity, as local files and task YAML; nothing is fetched.
"""
import json
import lzma
import os
import subprocess

import pytest
from harness import BIN, ROOT, write_job

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

# Log-probabilities agree to rounding: fp32 on both sides, but other kernels and other sums.
PERPLEXITY = 2e-4  # relative


def texts(count):
    with lzma.open(ROOT / "examples/text/train.jsonl.xz", "rt") as file:
        return [json.loads(next(file))["text"] for _ in range(count)]


def choice_items():
    """The next words of a text, or those of others; of unequal length, so that acc and acc_norm differ.

    Some are one token beside longer ones: what the model reads of those is a token less.
    """
    documents = [text.split() for text in texts(80)]
    documents = [words for words in documents if len(words) > 60][:24]
    items = []
    for i, words in enumerate(documents):
        choices = [" ".join(documents[(i + 5 * j) % len(documents)][30:31 + 2 * j]) for j in range(4)]
        answer = i % 4
        choices[0], choices[answer] = choices[answer], choices[0]
        items.append({"context": " ".join(words[:30]), "choices": choices, "answer": answer})
    return items


def word_items():
    items = []
    for text in texts(60):
        words = text.split()
        if len(words) > 40:
            items.append({"context": " ".join(words[:39]), "continuation": " " + words[39]})
    return items[:24]


def text_items():
    # The first is longer than the model's 2,048 positions: more than one window.
    return [{"text": "\n".join(texts(40))[:14000]}, *({"text": text[:1500]} for text in texts(3))]


SUITES = {"choices": ("acc_norm", choice_items), "words": ("lambada", word_items), "texts": ("perplexity", text_items)}
TASKS = {
    "choices": """output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "words": """output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: "{{continuation}}"
target_delimiter: ""
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}, {metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "texts": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}


# Attention and the harness's batch. Where blocks end with the sequence, what fills a batch up would move them: one by one.
FORMS = {"sliding": ({"window": {"size": 16}}, 4), "blocks_from_the_end": ({"window": {"kind": "terraced", "size": 16, "align_end": True}}, 1)}


def write_suites(folder):
    """Suite files for Tandem, task files for the harness; the former's paths."""
    paths = []
    for name, (metric, items) in SUITES.items():
        rows = items()
        assert len(rows) >= 4
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in [{"suite": name, "metric": metric}, *rows]))
        paths.append(str(path))
        (folder / f"{name}.items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / name}.items.jsonl}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{TASKS[name]}")
    return paths


@pytest.fixture(scope="module", params=FORMS)
def scored(tmp_path_factory, request):
    """(report, artifact, folder with the tasks, the harness's batch)"""
    folder = tmp_path_factory.mktemp("suites")
    attention, batch = FORMS[request.param]
    job = write_job(folder, attention=attention, evaluate={"sequences": 8, "bootstrap": 200, "suites": write_suites(folder),
                                                           "suite_modes": ["softmax", "hybrid"], "passkey": {"prompts": 0}})
    done = subprocess.run([BIN / "tandem", "run", job, "--work", folder / "work", "-o", "json"], capture_output=True, text=True,
                          timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    report = next(folder.glob("work/jobs/*/artifacts/report.json"))
    return json.loads(report.read_text()), result["artifact"], folder, batch


@pytest.mark.parametrize("mode", ["softmax", "hybrid"])
def test_scores_are_the_harness_s(scored, mode):
    report, artifact, folder, batch = scored
    model = str(ROOT / "examples/base-4m") if mode == "softmax" else artifact
    results = lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={model},dtype=float32,trust_remote_code=True,device=cpu", tasks=list(SUITES),
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False), batch_size=batch, bootstrap_iters=0)
    theirs = {name: {key.split(",")[0]: value for key, value in row.items()} for name, row in results["results"].items()}
    ours = {suite["name"]: suite["scores"][mode] for suite in report["suites"]}
    for metric in ("acc", "acc_norm"):
        assert ours["choices"][metric] == theirs["choices"][metric], (metric, ours, theirs)
    assert ours["choices"]["value"] == theirs["choices"]["acc_norm"]
    assert ours["words"]["value"] == theirs["words"]["acc"], (ours, theirs)
    assert ours["words"]["perplexity"] == pytest.approx(theirs["words"]["perplexity"], rel=PERPLEXITY)
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert ours["texts"][metric] == pytest.approx(theirs["texts"][metric], rel=PERPLEXITY), (metric, ours, theirs)
    # Neither all right nor all wrong: the comparison could have failed.
    assert 0 < ours["choices"]["value"] < 1
