"""What a result file of a GPU holds.

A file, one for each device, is JSON lines as benchmarks/result_file.py describes them.

A *part* is what one process measures: "roofline"; "<twin>/<dtype>"; "verify/<twin>"; "training",
"generation" and "ppo", which are end to end.

    {"status":      "measured", "running" (or cut short: run again), "skipped", "failed", "cut off"
     "reason":      null, or why not measured
     "settings":    {"dry_run": bool, "peaks": PEAKS, ...}
     "environment": {"date", "commit", "device", "driver", "cuda", "cpu", "python", "torch",
                     "triton", and other packages or null}
     "findings":    [FINDING, ...]}

PEAKS are the roofline's, measured in the same run, in bytes/s ("copy") and FLOP/s (by dtype and
"tf32"), and "datasheet", the vendor's, under the same names, or null if the device is unknown.

A *finding* is a cell: one shape, one direction, one provider.

    {"name":       "gpt2 training | forward | gptwin"
     "shape", "case", "direction", "provider"
                   direction: "forward", "backward" (alone) or "both" (one after the other)
     "status":     "measured"; "rejected" (faster than the device can be: the clock or the cost is
                   wrong); "failed" (raised, died, ran out of memory or time, or computed something
                   else); "skipped" (not installed, or not made for these arguments)
     "reason":     null, or why not measured
     "unit":       "seconds"                          (end to end also "tokens/s")
     "value":      {"median", "p20", "p80"}           None unless measured or rejected
     "samples":    how many
     "host_seconds":   median time until the host had launched it
     "launch_bound":   whether that took longer than the device's own time
     "extra_bytes":    most memory beyond what was there before; null where nobody counts it
     "flops", "bytes": from the twin's `Cost`: what any implementation must do; None without one
     "flops_per_s", "bytes_per_s"
     "roofline":   {"seconds": least time by PEAKS, "bound": "bytes" or "flops",
                    "share": of it that was reached, "label": null, "cache-resident" or
                    "above the measured peak"}; null if there are no peaks
     "gate":       {"truth": "NumPy float64", "eager float64" or "eager float32",
                    "share": of the error budget that was used up}; null for a yardstick}

"roofline", "verify/<twin>", "batch-invariance", "for-hopper", "calibration" and "plan" hold
findings of their own: rates, `gptwin verify`'s rows and how real sizes came through the gate, its
rows with `--batch-invariant`, those of attention with `GPTWIN_HOPPER=1`, numbers of
lab/predict/machines.py, and what became of each piece of plan.py with the seconds that it took.

End-to-end findings have "name", "provider", "status", "reason", "unit", "value", "samples",
"extra_bytes" as above, and "settings"; training has "mfu" and what it was computed from; generation
and PPO have "shape", "direction", "phases" and "gate" (what was compared, and how exactly), and are
named as cells are.

A dry run's parts have `settings["dry_run"]`; nothing that draws, compares or fills in a table takes
them for results.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ....core.checks import refuse
from ...result_file import RESULTS, Part, load
from ...timing import Finding

DIRECTIONS = ("forward", "backward", "both")
OURS = "gptwin"
BATCH_INVARIANT = f"{OURS}, batch-invariant"  # the same under that switch
AS_ON_AMPERE = f"{OURS}, as on sm_80"  # with that architecture's lists of configurations
ON_HOPPER = f"{OURS}, for Hopper"  # with the kernels in Gluon, which are switched off otherwise
# Parts of their own.
READY, VERIFY, CALIBRATION, PLAN = "ready", "verify", "calibration", "plan"
INVARIANCE = "batch-invariance"
HOPPER = "for-hopper"
END_TO_END = ("training", "generation", "ppo")
END_TO_END_PROVIDERS = ("gptwin", "eager", "nanoGPT", "transformers", "TRL")  # each in several ways


def cell_name(shape: str, direction: str, provider: str) -> str:
    """Name a cell within its part."""
    return f"{shape} | {direction} | {provider}"


def parts_of_name(name: str) -> dict[str, str]:
    """Return the shape, direction and provider that `cell_name` joined; "" what it has not."""
    shape, direction, provider = [*name.split(" | "), "", ""][:3]
    return {"shape": shape, "direction": direction, "provider": provider}


def is_ours(found: Finding) -> bool:
    """Say whether a finding is gptwin's own, compiled or with CUDA graphs as well."""
    who = found.get("provider") or found["name"]
    return str(who).partition(",")[0] == OURS


def is_real(part: Part) -> bool:
    """Say whether a part's figures mean something."""
    return not part["settings"].get("dry_run", False)


def measured(
    parts: Mapping[str, Part], *, dry_runs: bool = False
) -> Iterator[tuple[str, str, Finding]]:
    """Yield operation, dtype and finding of every cell that has a figure.

    Parameters
    ----------
    parts : dict
        Of a result file.
    dry_runs : bool
        Whether those of dry runs count.
    """
    for name, part in parts.items():
        operation, _, dtype = name.partition("/")
        if not dtype or operation == "verify" or not (dry_runs or is_real(part)):
            continue
        for found in part["findings"]:
            if found["status"] == "measured":
                yield operation, dtype, found


def not_measured(name: str, status: str, reason: str, **more: Any) -> Finding:
    """Make the finding of a cell that has no figure."""
    return {"name": name, "status": status, "reason": reason, "unit": "seconds", "value": None,
            **more}  # fmt: skip


# GPUs by architecture, by what their drivers' names hold: goals are ratios, which hold for any.
FAMILIES = {"Hopper": ("H100", "H200", "H800", "GH200", "H20"), "Ampere": ("A100", "A800")}


def family(device: str) -> str:
    """Return the architecture of a GPU by its name, one of `FAMILIES`; "" of any other.

    Parameters
    ----------
    device : str
        As `torch.cuda.get_device_name` says it: "NVIDIA H200".
    """
    words = device.replace("-", " ").split()
    return next((one for one, names in FAMILIES.items() if set(names) & set(words)), "")


def newest(folder: Path, of: str | None = None) -> Path | None:
    """Return the newest result file of a GPU in a folder; None if there is none.

    Parameters
    ----------
    folder : Path
    of : str, optional
        Its architecture, one of `FAMILIES`; any GPU if left out.
    """
    candidates = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            parts = load(path).values()
        except ValueError:
            continue  # of something else
        dates = [
            part["environment"]["date"]
            for part in parts
            if "device" in part["environment"] and is_real(part)
            if of is None or family(part["environment"]["device"]) == of
        ]
        candidates += [(max(dates), path)] if dates else []
    return max(candidates)[1] if candidates else None


def calibrated(results: str | None) -> tuple[str, dict[str, float], str]:
    """Return what a calibration found.

    Parameters
    ----------
    results : str, optional
        Result file; by default the newest one of Hopper, or else of Ampere.

    Returns
    -------
    arch : str
    numbers : dict of str to float
        By the names of lab/predict/machines.py.
    source : str
        Device and commit.

    Raises
    ------
    ValueError
        If no calibration is stored there.
    """
    of = (newest(RESULTS, one) for one in FAMILIES)
    path = Path(results) if results else next((path for path in of if path), None)
    part = load(path).get(CALIBRATION) if path else None
    if part is None or not is_real(part):
        refuse("results", "a GPU's result file with a calibration", str(path),
               "gptwin bench gpu --within 15 was not run")  # fmt: skip
    numbers = {
        found["name"]: found["value"]["median"]
        for found in part["findings"]
        if found["status"] == "measured"
    }
    here = part["environment"]
    arch = {"Hopper": "sm_90", "Ampere": "sm_80"}.get(family(here["device"]), "")
    if not arch:
        refuse("results", "a GPU of Hopper or Ampere", here["device"])
    return arch, numbers, f"{here['device']}, commit {here['commit'][:12]}"
