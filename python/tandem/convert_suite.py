"""A benchmark's published files to a suite file for evaluate.suites.

    python -m tandem.convert_suite NAME FILE... > NAME.jsonl

NAME, and what is read: JSONL as the authors publish it, or JSONL, Parquet or Arrow with the columns
of the Hugging Face data set that the harness's task names:

    piqa            valid.jsonl, with valid-labels.lst where `label` is no column
    arc_easy, arc_challenge    ARC-*-Test.jsonl            openbookqa    test.jsonl
    hellaswag       hellaswag_val.jsonl                    boolq         SuperGLUE's val.jsonl
    winogrande      dev.jsonl, with dev-labels.lst where `answer` is no column
    lambada         lambada_test.jsonl ({"text"})
    mmlu            dev/*.csv test/*.csv; or Parquet files with the column `subject`, those for the
                    five examples with `dev` in their name

Prompts and scoring are lm-evaluation-harness 0.4.13's, zero-shot but for MMLU (five examples, the
first of the subject's dev split). Metric: acc_norm for ARC-Challenge, HellaSwag and OpenBookQA, acc
else (method.md §8). MMLU's score is the mean of its subjects', which the harness weighs by their
size. Rows that already are {"query", "choices", "gold"} are taken as the question
and its choices. Items keep the files' order. One bad row refuses the file. Exit codes: 0 written, 2
a file cannot be used.
"""

import argparse
import csv
import json
import os
import re
import sys

from tandem.columnar import columnar_records
from tandem.documents import guarded_blocks, numbered_lines, source_of
from tandem.record_forms import parse_line
from tandem.suite_files import checked_item
from tandem.violations import BadDocument, BadFile

LETTERS = ("A", "B", "C", "D")
MMLU_EXAMPLES = 5


class EveryColumn:
    def __contains__(self, name):
        return True


# ---------------------------------------------------------------- questions


def piqa(row):
    if "query" in row:
        question, choices, answer = row["query"], row["choices"], row["gold"]
    else:
        question, choices, answer = row["goal"], [row["sol1"], row["sol2"]], row["label"]
    return choice_item(f"Question: {question}\nAnswer:", choices, answer)


def science_question(row):
    """ARC and OpenBookQA: (question, choices, index of the answer)."""
    if "query" in row:
        return row["query"], row["choices"], row["gold"]
    question = row.get("question", row)
    if isinstance(question, dict):
        stem = question["stem"] if "stem" in question else question["question_stem"]
        found = question["choices"]
    else:
        stem, found = question, row["choices"]
    if isinstance(found, dict):
        texts, labels = found["text"], found["label"]
    else:
        texts, labels = [c["text"] for c in found], [c["label"] for c in found]
    return stem, texts, labels.index(row["answerKey"].strip())


def arc(row):
    question, choices, answer = science_question(row)
    return choice_item(f"Question: {question}\nAnswer:", choices, answer)


def openbookqa(row):
    return choice_item(*science_question(row))


def hellaswag(row):
    if "query" in row:
        return choice_item(row["query"], row["choices"], row["gold"])
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return choice_item(wikihow(context), [wikihow(e) for e in row["endings"]], int(row["label"]))


def wikihow(text):
    """Without the brackets that WikiHow's pages left in the data."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def winogrande(row):
    """Partial scoring: what follows the blank, behind the sentence with either option."""
    before, _, after = row["sentence"].partition("_")
    contexts = [before + row["option1"], before + row["option2"]]
    answer = int(row["answer"]) - 1
    return {"contexts": contexts, "continuation": after.strip(), "answer": answer}


def boolq(row):
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return choice_item(context, ["no", "yes"], int(row["label"]))


def lambada(row):
    *context, last = row["text"].split(" ")
    return {"context": " ".join(context), "continuation": " " + last}


def choice_item(context, choices, answer):
    return {"context": context, "choices": list(choices), "answer": int(answer)}


SUITES = {
    "piqa": (piqa, "acc"),
    "arc_easy": (arc, "acc"),
    "arc_challenge": (arc, "acc_norm"),
    "hellaswag": (hellaswag, "acc_norm"),
    "winogrande": (winogrande, "acc"),
    "openbookqa": (openbookqa, "acc_norm"),
    "boolq": (boolq, "acc"),
    "lambada": (lambada, "lambada"),
}
# Columns that are published as files of their own.
LABELS = {"piqa": "label", "winogrande": "answer"}
# What to do about a column that is not there.
HINTS = {
    ("piqa", "label"): "name valid-labels.lst too",
    ("winogrande", "answer"): "name dev-labels.lst too",
    ("boolq", "label"): "take SuperGLUE's: BoolQ's own passages lack the title of the prompts",
}


# ---------------------------------------------------------------- MMLU


def mmlu_items(paths):
    examples, questions = {}, {}
    for path in paths:
        for row in mmlu_rows(path):
            into = examples if "dev" in os.path.basename(path) else questions
            into.setdefault(row["subject"], []).append(row)
    for subject, rows in questions.items():
        if len(examples.get(subject, [])) < MMLU_EXAMPLES:
            raise BadFile(
                f"{subject} has {len(examples.get(subject, []))} examples; {MMLU_EXAMPLES} are "
                f"needed: name its dev file too, as dev/{subject}_dev.csv"
            )
        words = subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {words}.\n\n"
        for row in examples[subject][:MMLU_EXAMPLES]:
            head += f"{mmlu_question(row)} {LETTERS[row['answer']]}\n\n"
        for row in rows:
            item = choice_item(head + mmlu_question(row), LETTERS, row["answer"])
            yield {**item, "group": subject}


def mmlu_rows(path):
    """{subject, question, choices, answer: index}."""
    if not path.endswith(".csv"):
        for place, row in rows_of(path):
            yield as_published("mmlu", place, mmlu_row, row)
        return
    subject = re.sub(r"_(dev|test|val)\.csv$", "", os.path.basename(path))
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if len(row) != 6 or row[5] not in LETTERS:
                    raise BadFile(f"{path}, row {number} is not question, A, B, C, D, answer")
                answer = LETTERS.index(row[5])
                yield {
                    "subject": subject, "question": row[0], "choices": row[1:5], "answer": answer
                }  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} cannot be read ({error})") from error


def mmlu_row(row):
    """The hub's columns, all of them looked at."""
    item = choice_item("", row["choices"], row["answer"])
    checked_item("acc", {**item, "context": row["question"]})
    return {**item, "subject": row["subject"], "question": row["question"]}


def mmlu_question(row):
    choices = "".join(f"\n{a}. {text}" for a, text in zip(LETTERS, row["choices"]))
    return f"{row['question'].strip()}{choices}\nAnswer:"


# ---------------------------------------------------------------- files


def rows_of(path):
    """(place, row) of JSONL or Parquet. Raises BadFile, BadDocument."""
    source = source_of(path)
    if source.kind == ".jsonl":
        for number, line in numbered_lines(path, guarded_blocks(path, source.compression)):
            place = f"{path}, line {number}"
            try:
                yield place, parse_line(line)
            except BadDocument as problem:
                raise BadDocument(f"{place}: {problem}") from problem
    else:
        for number, row in enumerate(columnar_records(path, source.kind, EveryColumn())):
            yield f"{path}, row {number}", row


def labels_of(paths):
    labels = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                labels += file.read().split()
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{path} cannot be read ({error})") from error
    return labels


def as_published(name, place, make, row):
    """make(row). Raises BadDocument, which says what the row has not."""
    try:
        return make(row)
    except BadDocument as problem:
        raise BadDocument(f"{place}: {problem}") from problem
    except KeyError as error:
        key = error.args[0]
        hint = "; " + HINTS[name, key] if (name, key) in HINTS else ""
        raise BadDocument(
            f"{place} is not as {name} is published: it has no '{key}'{hint}"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BadDocument(f"{place} is not as {name} is published ({error!r})") from error


def question_items(name, paths):
    make, metric = SUITES[name]
    labels, number = labels_of([path for path in paths if path.endswith(".lst")]), 0
    for path in paths:
        if path.endswith(".lst"):
            continue
        for place, row in rows_of(path):
            if number < len(labels) and isinstance(row, dict):
                row = {**row, LABELS.get(name, "label"): labels[number]}
            number += 1
            yield as_published(name, place, lambda row: checked_item(metric, make(row)), row)
    if labels and number != len(labels):
        raise BadFile(f"{len(labels)} labels for {number} questions; name the files that belong")


def items(name, paths):
    """Items of a suite. Raises BadFile, BadDocument."""
    found = list(mmlu_items(paths) if name == "mmlu" else question_items(name, paths))
    if not found:
        raise BadFile(f"{', '.join(paths)}: there is no question of {name} in it")
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tandem.convert_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*SUITES, "mmlu"])
    parser.add_argument("files", nargs="+")
    chosen = parser.parse_args(arguments)
    metric = "acc" if chosen.name == "mmlu" else SUITES[chosen.name][1]
    try:
        lines = [json.dumps(item, ensure_ascii=False) for item in items(chosen.name, chosen.files)]
    except (BadFile, BadDocument) as problem:
        print(f"convert_suite: {problem}", file=sys.stderr)
        return 2
    try:
        print("\n".join([json.dumps({"suite": chosen.name, "metric": metric}), *lines]), flush=True)
    except BrokenPipeError:  # `| head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
