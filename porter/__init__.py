"""porter: port model weights between frameworks.

    import porter
    porter.download("gemma-2b")                            # into the Hub's cache, verified
    porter.inspect("gemma-2b/")                            # what is in it
    porter.plan("gemma-2b/", to="litgpt")                  # the proof, nothing written
    porter.convert("gemma-2b/", "out/", to="litgpt")       # the bytes
    porter.verify("gemma-2b/", "out/")                     # is it a right port, by whatever tool?
    porter.check("out/")                                   # is it still what was written
    porter.sign("out/", private_key="key.pem")             # and whose it is
    porter.fingerprint("gemma-2b/").fingerprint            # one digest, the same in every dialect
    porter.diff("gemma-2b/", "finetuned/").values          # how two models differ
    porter.load_state_dict("gemma-2b/", to="litgpt")       # no file written (this one loads torch)
    porter.compare_logits("gemma-2b/", "out/")             # do both compute the same? (and this one)

Names are loaded when they are first used: importing porter costs nothing, and what is not said to load torch
does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from porter.api.check import check
    from porter.api.compare_logits import compare_logits
    from porter.api.convert import Conversion, convert, plan
    from porter.api.diff import diff
    from porter.api.doctor import Health, doctor
    from porter.api.download import download
    from porter.api.downloaded import Download
    from porter.api.fingerprint import fingerprint
    from porter.api.inspect import inspect
    from porter.api.sign import Signed, sign
    from porter.api.state_dict import load_state_dict
    from porter.api.supported import Support, list_models
    from porter.api.verify import verify
    from porter.errors import PorterError
    from porter.execution.run_options import RunOptions
    from porter.execution.watch import Watch
    from porter.planning.plan import Plan
    from porter.planning.plan_options import PlanOptions
    from porter.recognition.inspection import Inspection
    from porter.verification.fingerprints import Fingerprint
    from porter.verification.integrity import OutputCheck
    from porter.verification.logits import LogitsComparison
    from porter.verification.model_diff import ModelDiff
    from porter.verification.verdict import Verdict

__all__ = [
    "Conversion",
    "Download",
    "Fingerprint",
    "Health",
    "Inspection",
    "LogitsComparison",
    "ModelDiff",
    "OutputCheck",
    "Plan",
    "PlanOptions",
    "PorterError",
    "RunOptions",
    "Signed",
    "Support",
    "Verdict",
    "Watch",
    "__version__",
    "check",
    "compare_logits",
    "convert",
    "diff",
    "doctor",
    "download",
    "fingerprint",
    "inspect",
    "list_models",
    "load_state_dict",
    "plan",
    "sign",
    "verify",
]

_HOMES = {
    "compare_logits": "porter.api.compare_logits",
    "LogitsComparison": "porter.verification.logits",
    "Conversion": "porter.api.convert",
    "convert": "porter.api.convert",
    "plan": "porter.api.convert",
    "OutputCheck": "porter.verification.integrity",
    "check": "porter.api.check",
    "Fingerprint": "porter.verification.fingerprints",
    "fingerprint": "porter.api.fingerprint",
    "ModelDiff": "porter.verification.model_diff",
    "diff": "porter.api.diff",
    "Download": "porter.api.downloaded",
    "download": "porter.api.download",
    "Health": "porter.api.doctor",
    "doctor": "porter.api.doctor",
    "Inspection": "porter.recognition.inspection",
    "inspect": "porter.api.inspect",
    "load_state_dict": "porter.api.state_dict",
    "Signed": "porter.api.sign",
    "sign": "porter.api.sign",
    "Support": "porter.api.supported",
    "list_models": "porter.api.supported",
    "Plan": "porter.planning.plan",
    "PlanOptions": "porter.planning.plan_options",
    "RunOptions": "porter.execution.run_options",
    "Watch": "porter.execution.watch",
    "Verdict": "porter.verification.verdict",
    "verify": "porter.api.verify",
    "PorterError": "porter.errors",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "models":
        return import_module("porter.models")
    if name not in _HOMES:
        raise AttributeError(f"module 'porter' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "models"])
