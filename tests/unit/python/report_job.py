"""A job folder as ranks and agent leave it, with figures like those of a small model."""

import json
import math

BALANCED = {
    "version": 1,
    "job": "ssd",
    "uid": "b1946ac9-2492-4d23-b6a8-6d6d2f0d1f0e",
    "verdict": "balanced",
    "verdict_reason": (
        "the linear branch alone recovers 79 % of what attention is worth, the window alone 93 %; "
        "together they save 0.0441 nats over the window alone"
    ),
    "linear_capability": 0.787,
    "beyond_window": 0.31,
    "state_swap_delta": 0.052,
    "linear_delta": 0.0441,
    "linear_delta_low": 0.0372,
    "linear_delta_high": 0.0513,
    "components": {
        mode: dict(zip(("loss", "perplexity", "standard_error", "recovered"), figures))
        for mode, figures in {
            "softmax": (3.452, 31.56, 0.031, 1.0),
            "hybrid": (3.551, 34.85, 0.031, 0.948),
            "window_only": (3.595, 36.42, 0.032, 0.926),
            "linear_only": (3.863, 47.61, 0.03, 0.787),
            "sinks_only": (5.38, 217.02, 0.03, 0.0),
            "none": (6.412, 609.11, 0.035, -0.535),
        }.items()
    },
    "passkey": [
        {
            "distance": distance,
            "prompts": 32,
            "accuracy": dict(zip(("softmax", "hybrid", "window_only", "linear_only"), shares)),
        }
        for distance, shares in {
            16: (1.0, 0.53, 0.28, 0.06),
            128: (0.97, 0.22, 0.0, 0.03),
            384: (1.0, 0.06, 0.0, 0.0),
        }.items()
    ],
    "sequences": 64,
    "sequence_length": 512,
    "linear_mass": [
        [0.81, 0.64, 0.92, 0.33], [0.55, 0.71, 0.48, 0.12], [0.07, 0.91, 0.38, 0.6],
        [0.44, 0.52, 0.83, 0.7],
    ],
    "linear_active": 0.875,
    "thresholds": {
        "collapsed_below": 0.55, "leaning_below": 0.75, "window_leaning_below": 0.5,
        "content_free_below": 0.25,
    },
    "seconds": 16.2,
}  # fmt: skip

COLLAPSED = {
    **BALANCED,
    "job": "lolcats",
    "verdict": "collapsed",
    "verdict_reason": (
        "the linear branch alone recovers 25 % of what attention is worth; 55 % is the least: "
        "it is bypassed"
    ),
    "linear_capability": 0.25,
    "components": {
        **BALANCED["components"],
        "linear_only": {
            "loss": 4.898,
            "perplexity": 134.02,
            "standard_error": 0.04,
            "recovered": 0.25,
        },
    },
    "linear_mass": [
        [0.02, 0.05, 0.01, 0.03],
        [0.11, 0.04, 0.02, 0.01],
        [0.01] * 4,
        [0.09, 0.02, 0.02, 0.04],
    ],
}


def shares(*values):
    return dict(zip(("softmax", "hybrid", "window_only", "linear_only"), values))


# Every key that a report may have, as of a run with retained heads, suites and an early stop.
FULL = {
    **BALANCED,
    "job": "hedgecats",
    "recipe": "hedgecats",
    "served_mode": "hybrid",
    "beats_window": {
        "value": False,
        "training_free": {"loss": 3.641, "delta": 0.09, "low": 0.081, "high": 0.099},
        "trained": {"loss": 3.559, "delta": 0.008, "low": 0.001, "high": 0.015},
        "margin": 0.01,
        "words": "the trained window comes within 0.008 nats",
    },
    "recall": {"value": 0.62, "words": "passkey beyond 252 tokens"},
    "long_range": [
        {"kind": "passkey", "distance": 16, "length": 512, "prompts": 32,
         "accuracy": shares(1.0, 0.53, 0.28, 0.06)},
        {"kind": "needle", "distance": 400, "length": 512, "prompts": 16,
         "accuracy": shares(0.94, 0.75, 0.0, 0.0)},
        {"kind": "recall", "facts": 8, "length": 512, "prompts": 16,
         "accuracy": shares(1.0, 0.5, 0.1, 0.0)},
        {"kind": "recall", "facts": 16, "length": 512, "prompts": 16,
         "accuracy": shares(1.0, 0.25, 0.05, 0.0)},
        {"kind": "key_value", "pairs": 4, "length": 512, "prompts": 16,
         "accuracy": shares(0.9, 0.4, 0.3, 0.1)},
    ],
    "suites": [
        {"name": name, "metric": metric, "items": items, "linear_active": active,
         "scores": {mode: {"value": value, "standard_error": 0.012}
                    for mode, value in shares(*values).items()}}
        for name, metric, items, active, values in (
            ("piqa", "acc", 1838, 0.02, (0.612, 0.607, 0.605, 0.571)),
            ("hellaswag", "acc_norm", 10042, 0.31, (0.301, 0.296, 0.294, 0.272)),
            ("wikitext", "perplexity", 62, 0.93, (31.2, 34.9, 37.0, 48.1)),
        )
    ],
    "suites_average": shares(0.457, 0.452, 0.45, 0.422),
    "lengths": [
        {"length": length, "components": {mode: {"loss": loss}
                                          for mode, loss in shares(*losses).items()}}
        for length, losses in (
            (256, (3.521, 3.612, 3.65, 3.9)), (1024, (3.44, 3.7, 3.593, 4.41)),
        )
    ],
    "early_stop": {
        "stage_index": 1, "component": "linear_only", "step": 100,
        "words": "linear_only was worse than at the start at step 125 (3.871 against 3.869); "
        "step 100 is kept",
        "curve": [
            {"step": step, "hybrid": 3.75 - 0.02 * i, "window_only": 3.62 - 0.004 * i,
             "linear_only": 3.869 - 0.03 * i + 0.0076 * i * i}
            for i, step in enumerate(range(0, 126, 25))
        ],
    },
    "retained": [[3, 1]],
    "retain_scores": [[0.02, 0.05], [0.01, 0.11], [0.3, 0.07], [0.2, 0.9]],
    "linear_mass": [*BALANCED["linear_mass"][:3], [0.44, 0.52, None, None]],
    "cost": {
        "tokens": 1433600, "seconds": 201.5, "peak_memory_bytes": 1.9e9,
        "stages": [
            {
                "stage": "prepare", "stage_index": -1, "tokens": 1904389, "seconds": 7.0,
                "peak_memory_bytes": 1.5e8,
                "estimate": {"tokens": 1950000, "seconds": 8.0, "memory_bytes": 1.4e8},
                "error": {"seconds": -0.125, "memory_bytes": 0.07},
            },
            {
                "stage": "attention_transfer", "stage_index": 0, "tokens": 614400, "seconds": 63.0,
                "steps": 300, "peak_memory_bytes": 6.2e8, "flop_per_token": 2.4e7,
                "flop_per_second": 2.34e11,
                "estimate": {"tokens": 614400, "seconds": 60.0, "memory_bytes": 5.0e8},
                "error": {"seconds": 0.05, "memory_bytes": 0.24},
            },
            {
                "stage": "finetune", "stage_index": 1, "tokens": 204800, "seconds": 34.0,
                "steps": 100, "peak_memory_bytes": 1.9e9, "flop_per_token": 6.1e7,
                "flop_per_second": 3.67e11,
                "estimate": {"tokens": 819200, "seconds": 160.0, "memory_bytes": 2.0e9},
                "error": {"seconds": -0.15, "memory_bytes": -0.05},
            },
            {"stage": "evaluate", "stage_index": 2, "tokens": 524288, "seconds": 16.2},
        ],
    },
}  # fmt: skip

PLAN = {
    "version": 1,
    "job_uid": BALANCED["uid"],
    "job_name": "ssd",
    "epoch": 2,
    "seed": 0,
    "model": "/models/base-4m",
    "spec_sha256": "5e" * 32,
    "ranks": 1,
    "attention": {
        "feature_map_kind": "hedgehog", "feature_dim": 64, "window_kind": "sliding",
        "window_size": 64, "window_sinks": 0, "linear_span": "outside", "mixing_factor": "sigmoid",
    },
    "data": {"sequence_length": 512},
    "evaluate": {"sequences": 64, "sinks": 8},
    "stages": [
        {
            "kind": "attention_transfer", "objective": "weights", "steps": 300, "batch_size": 4,
            "learning_rate": 0.04,
        },
        {
            "kind": "finetune", "mode": "hybrid", "steps": 400, "batch_size": 4,
            "learning_rate": 0.002, "train_maps": True, "lora_rank": 32,
            "ssd_schedule": [0.9, 0.7, 0.3],
        },
    ],
}  # fmt: skip


def wave(step, salt):
    """Noise without a random generator."""
    return math.sin(step * 12.9898 + salt * 78.233) * 0.5


def transfer_line(step):
    layers = [
        4.1 + 0.3 * layer + 1.6 * math.exp(-step / 25) + 0.05 * wave(step, layer)
        for layer in range(4)
    ]
    return {
        "stage": "attention_transfer", "stage_index": 0, "step": step, "loss": sum(layers) / 4,
        "learning_rate": 0.04, "layers": layers, "tokens": 2048, "seconds": 0.21,
    }  # fmt: skip


def finetune_line(step):
    dropped = float((step * 7919) % 10 < (9 if step < 133 else 7 if step < 266 else 3))
    level = (3.95 if dropped else 3.6) + 0.9 * math.exp(-step / 60)
    return {
        "stage": "finetune", "stage_index": 1, "step": step, "loss": level + 0.12 * wave(step, 9),
        "learning_rate": 0.002, "grad_norm": 0.8, "window_dropped": dropped, "tokens": 2048,
        "seconds": 0.34,
    }  # fmt: skip


def write_job(folder, evaluation=BALANCED, plan=PLAN):
    """attempts 1 (killed in the second stage, its last line cut) and 2 (resumed), artifacts."""
    first = [transfer_line(s) for s in range(1, 301)] + [finetune_line(s) for s in range(1, 121)]
    for line in first[-20:]:
        line["loss"] += 10.0  # lost with the attempt: the second one makes these steps again
    second = [finetune_line(s) for s in range(101, 401)]
    for epoch, lines, end in ((1, first, '{"stage": "finetune", "st'), (2, second, "")):
        attempt = folder / "attempts" / str(epoch)
        attempt.mkdir(parents=True)
        (attempt / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines) + end
        )
        (attempt / "plan.json").write_text(json.dumps(plan))
    model = folder / "artifacts" / "model"
    model.mkdir(parents=True)
    (folder / "artifacts" / "report.json").write_text(json.dumps(evaluation))
    manifest = {
        "version": 1,
        "spec_sha256": "5e" * 32,
        "base": {"name": "base-4m", "sha256": "a1" * 32, "files": {"config.json": "b2" * 32}},
        "data": {"manifest_sha256": "d4" * 32},
        "files": {"model.safetensors": "c3" * 32},
    }
    (model / "manifest.json").write_text(json.dumps(manifest))
    config = {"model_type": "hybrid_linear", "num_attention_heads": 4, "num_key_value_heads": 2}
    (model / "config.json").write_text(json.dumps(config))
    return folder
