"""What watches programs, each check broken on purpose and shown by a test in `../sanitize`.

See test_mutants.py, and mutants.py for the checks of a launch.
"""

WATCH = "lab/sanitize/watch.py"
STORAGES = "lab/sanitize/storages.py"
PASSES = "lab/sanitize/passes.py"
AUTOTUNED = "lab/sanitize/autotuned.py"
PRETEND = "lab/pretend/places.py"
MEMORY = "kernels/interpreter/programs/memory.py"

TUNED = "test_program.py", "test_an_autotuned_kernel_runs_as_triton_tunes_it()"
UNWRITTEN = "test_program.py", "test_unwritten_results_are_found_when_they_are_used"
RANKED = "test_ranks.py", "test_zeros_do_for_a_sum_and_not_for_a_maximum"

# name: (file, what stands there once, what takes its place, the test's file, its call)
OF_PROGRAMS = {
    "lists of configurations are not pruned": (
        AUTOTUNED,
        "tuner.prune_configs(options) if len(tuner.configs) > 1 else tuner.configs",
        "tuner.configs",
        *TUNED,
    ),
    "arguments are not reset": (
        AUTOTUNED,
        "tuner.pre_hook(full, reset_only=True)",
        "pass",
        *TUNED,
    ),
    "no hook before a trial": (
        AUTOTUNED,
        "        tuner.pre_hook(full)\n",
        "",
        *TUNED,
    ),
    "no configuration is the best": (
        AUTOTUNED,
        "tuner.best_config = configuration",
        "pass",
        *TUNED,
    ),
    "configurations that differ in warps are two": (
        AUTOTUNED,
        "return [c for c in configurations if any(c is kept for kept in found.values())]",
        "return configurations",
        *TUNED,
    ),
    "one configuration is enough": (
        AUTOTUNED,
        "n = min(limit, len(configurations))",
        "n = 1",
        *TUNED,
    ),
    "a trial leaves its traces": (
        AUTOTUNED,
        "with self.watch.undoing(list(_tensors(given.values()))):",
        "if True:",
        "test_program.py",
        "test_a_trial_leaves_no_traces()",
    ),
    "nobody asks what PyTorch reads": (
        STORAGES,
        "                self._reader(tensor)\n",
        "                pass\n",
        UNWRITTEN[0],
        UNWRITTEN[1] + "(half)",
    ),
    "a copy is read": (
        STORAGES,
        "if lost.any() and maker in _COPIES:",
        "if False:",
        UNWRITTEN[0],
        UNWRITTEN[1] + "(half)",
    ),
    "custom operations are opaque": (
        STORAGES,
        "for key in _CUSTOM_KEYS:",
        "for key in ():",
        UNWRITTEN[0],
        UNWRITTEN[1] + "(half_operation)",
    ),
    "custom operations write what they like": (
        "lab/sanitize/program.py",
        "self.watch = Watch(storages, storages.is_declared_input, seed, updates)",
        "self.watch = Watch(storages, lambda storage: False, seed, updates)",
        "test_program.py",
        "test_a_custom_operation_writes_only_what_it_declares()",
    ),
    "nothing may be allowed": (
        WATCH,
        "items.argument.name not in self._updates and self._is_input(storage)",
        "self._is_input(storage)",
        "test_program.py",
        "test_a_custom_operation_writes_only_what_it_declares()",
    ),
    "an inner context's findings are its own": (
        "lab/sanitize/program.py",
        "watch.violations = before[0] | {",
        "watch.violations = before[0] or {",
        "test_program.py",
        "test_an_inner_context_tells_its_own_findings_and_the_outer_one_all()",
    ),
    "what a kernel raises is lost": (
        WATCH,
        "            self._find_failure(launch, error)\n",
        "",
        "test_program.py",
        "test_what_a_kernel_raises_reaches_the_program_and_is_a_finding()",
    ),
    "what is computed on the GPU is on the CPU": (
        PRETEND,
        "if any(map(on_gpu, given)):",
        "if False:",
        "test_program.py",
        "test_what_is_put_on_the_gpu_says_so_and_so_does_what_comes_of_it()",
    ),
    "a copy on the GPU is the same tensor": (
        PRETEND,
        "copy = tensor.clone()",
        "copy = tensor.view_as(tensor)",
        "test_program.py",
        "test_a_copy_on_the_gpu_is_a_copy()",
    ),
    "zeros are always right": (
        PASSES,
        "if different.any():",
        "if False:",
        RANKED[0],
        RANKED[1] + "('max', \"wrong even with zeros\", torch.float32)",
    ),
    "zeros are always wrong": (
        PASSES,
        "if different.any():",
        "if True:",
        RANKED[0],
        RANKED[1] + "('sum', \"zeros on today's compilers\", torch.float32)",
    ),
    "what is refused is touched": (
        WATCH,
        "return refused.reshape(access.mask.shape) if refused.any() else None",
        "return None",
        "test_refused.py",
        "test_what_is_refused_touches_nothing()",
    ),
    "a refused compare-and-swap swaps": (
        MEMORY,
        "    if refused is not None:  # this operation has no mask\n",
        "    if False:\n",
        "test_refused.py",
        "test_what_is_refused_touches_nothing()",
    ),
}
