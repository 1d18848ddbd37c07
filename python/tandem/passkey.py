"""Passkey prompts: a number hidden in filler text, asked for at the end: recall by distance.

    BOS filler KEY filler(distance tokens) QUESTION " N"

All prompts have exactly `length` ids; `distance` is the number of tokens between the key sentence
and the question. Scored teacher-forced: each token of the answer must be the argmax of the logits
one position before it.
"""

import hashlib

KEY = "\nThe pass key is {n}. Remember it. {n} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"


def make_prompts(tokenizer, filler, settings, seed, violations):
    """passkey.json's content. filler: ids of held-out text; settings as in the request."""
    length, prompts = settings["length"], []
    for distance in settings["distances"]:
        for index in range(settings["prompts"]):
            prompt = make_prompt(tokenizer, filler, length, distance, f"{seed}/{distance}/{index}")
            if prompt is None:
                violations.add(
                    "evaluate.passkey.distances",
                    f"{distance} does not fit into prompts of {length} tokens beside key and "
                    "question; take a smaller distance or a longer data.sequence_length",
                )
                break
            prompts.append(prompt)
    return {"length": length, "prompts": prompts}


def make_prompt(tokenizer, filler, length, distance, name):
    """One prompt, or None if the distance leaves no room."""
    number = 10000 + draw(name + "/key", 90000)
    begin = [] if tokenizer.bos is None else [tokenizer.bos]
    key = tokenizer.encode(KEY.format(n=number))
    question = tokenizer.encode(QUESTION)
    ending = tokenizer.encode(f"{QUESTION} {number}")
    answer_length = len(ending) - shared_start(question, ending)
    before = length - len(begin) - len(key) - distance - len(ending)
    if before < 0:
        return None
    text = cut(filler, draw(name + "/filler", len(filler)), before + distance)
    ids = begin + text[:before] + key + text[before:] + ending
    return {
        "distance": distance,
        "ids": ids,
        "answer_start": length - answer_length,
        "answer_length": answer_length,
    }


def shared_start(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def cut(filler, start, count):
    """`count` ids from `start`, going round at the end."""
    ids = filler[start : start + count]
    while len(ids) < count:
        ids = ids + filler[: count - len(ids)]
    return ids


def draw(name, bound):
    """A number below `bound` that depends on the name alone, on every machine and Python."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % bound
