"""The sanitizer's checks, each broken on purpose and shown by a kernel of `broken/`.

See test_mutants.py; mutants_of_programs.py has those that a test in `../sanitize` shows.

What is broken must be safe to run: a check that keeps a kernel off foreign memory is broken for a
kernel that only reads, and only the element beside a tensor's.
"""

WATCH = "lab/sanitize/watch.py"
SHADOW = "lab/sanitize/shadow.py"
STORAGES = "lab/sanitize/storages.py"
MEMORY = "kernels/interpreter/programs/memory.py"
ARITHMETIC = "kernels/interpreter/numbers/arithmetic.py"

# name: (file, what stands there once, what takes its place, the kernel that shows it)
MUTANTS = {
    # --- where a lane may be ----------------------------------------------------------------------
    "nothing is out of bounds": (
        WATCH,
        "            if missing.any():\n",
        "            if False:\n",
        "off_by_one",
    ),
    "a tensor ends one item too late": (
        SHADOW,
        "(positions + itemsize > self.size)",
        "(positions > self.size)",
        "off_by_one",
    ),
    "a tensor has no beginning": (
        SHADOW,
        "missing = (positions < 0) | ",
        "missing = ",
        "before_the_start",
    ),
    "a view has no gaps": (
        SHADOW,
        "elements[item_bytes(element_positions(tensor), itemsize)] = True",
        "elements[:] = True",
        "row_padding",
    ),
    "an expanded tensor is as large as its shape": (
        SHADOW,
        "size = (1 + sum((n - 1) * stride for n, stride in extents)) * itemsize",
        "size = tensor.numel() * itemsize",
        "every_second_column",
    ),
    "one element of an item is enough": (
        SHADOW,
        "missing[inside] = ~touched.all(axis=-1)",
        "missing[inside] = ~touched.any(axis=-1)",
        "word_in_a_gap",
    ),
    "every address is aligned": (
        WATCH,
        "if misaligned.any():",
        "if False:",
        "misaligned",
    ),
    "an address from nowhere is left alone": (
        WATCH,
        "self._find_lost(access, addresses[lost])",
        "pass",
        "freed_too_early",
    ),
    "a spoilt number is looked up": (
        WATCH,
        "numbers = np.where(numbers > len(self._pass.arguments), 0, numbers)",
        "pass",
        "undefined_index",
    ),
    "the second run's accesses are not looked at": (
        WATCH,
        'if violation.kind in ("failure", "endless wait", "out of bounds")',
        'if violation.kind in ("failure", "endless wait")',
        "undefined_index",
    ),
    # --- what was written -------------------------------------------------------------------------
    "torch.empty is written": (
        STORAGES,
        "unwritten = np.ones(size, dtype=bool) if maker in _UNWRITTEN else None",
        "unwritten = None",
        "never_initialised",
    ),
    "an atomic does not read": (
        WATCH,
        'if access.kind != "store":',
        'if access.kind == "load":',
        "count_into_empty",
    ),
    "a load does not read": (
        WATCH,
        'if access.kind != "store":',
        'if access.kind == "atomic":',
        "never_initialised",
    ),
    "a store does not write": (
        WATCH,
        "            storage.write(items.positions, access.itemsize)\n",
        "",
        "grid_too_small",
    ),
    "one written byte is enough": (
        STORAGES,
        "return self.unwritten[item_bytes(positions, itemsize)].any(axis=-1)",
        "return self.unwritten[item_bytes(positions, itemsize)].all(axis=-1)",
        "half_a_word_written",
    ),
    "results are not looked at": (
        "lab/sanitize/sanitize.py",
        "if storage.unwritten is None or writer is None:",
        "if True:",
        "block_too_small",
    ),
    "an input may be written": (
        WATCH,
        'self._find("write to an input", items)',
        "pass",
        "undeclared_update",
    ),
    "what is returned may not be written": (
        "lab/sanitize/sanitize.py",
        "if storages <= allowed:",
        "if False:",
        "reversed_in_place",
    ),
    "constants are data": (
        STORAGES,
        "holds_data = maker not in _UNWRITTEN | _CONSTANT",
        "holds_data = True",
        "unlocked_too_early",
    ),
    # --- races of programs ------------------------------------------------------------------------
    "nobody sees a store": (
        WATCH,
        'shadow.writer, "wrote")',
        '0 * shadow.writer, "wrote")',
        "overlapping_blocks",
    ),
    "no load sees an atomic": (
        WATCH,
        '            conflict("read race", shadow.atomic, "changed")\n',
        "",
        "reads_a_counter",
    ),
    "no store sees the first load": (
        WATCH,
        '        conflict("read race", shadow.reader, "read")\n',
        "",
        "lost_update",
    ),
    "no store sees the last load": (
        WATCH,
        '        conflict("read race", shadow.last_reader, "read")\n',
        "",
        "reset_too_early",
    ),
    "no store sees an atomic": (
        WATCH,
        '            conflict("write race", shadow.atomic, "changed")\n',
        "",
        "cleared_in_the_same_launch",
    ),
    "a load leaves no trace": (
        WATCH,
        "shadow.reader[cells[unread]] = clock.now",
        "pass",
        "lost_update",
    ),
    "a store leaves no trace": (
        WATCH,
        "            shadow.writer[cells] = clock.now\n",
        "",
        "overlapping_blocks",
    ),
    "an atomic leaves no trace": (
        WATCH,
        "        shadow.atomic[cells] = clock.now\n",
        "",
        "atomic_sum",
    ),
    "floats may be added in any order": (
        WATCH,
        'if access.kind == "atomic" and access.element.is_floating():',
        "if False:",
        "atomic_sum",
    ),
    "lanes may add floats in any order": (
        WATCH,
        '            if len(repeated):\n                self._find("atomic order"',
        '            if False:\n                self._find("atomic order"',
        "lanes_add_to_one",
    ),
    "integers may not": (
        WATCH,
        'if access.kind == "atomic" and access.element.is_floating():',
        "if True:",
        "lost_update",
    ),
    "lanes may write different values": (
        WATCH,
        "            self._check_lanes(items, repeated, others)\n",
        "            pass\n",
        "duplicate_lanes",
    ),
    "lanes may not write one value": (
        WATCH,
        "bits[repeated] != bits[others]",
        "bits[repeated] == bits[others]",
        "duplicate_lanes",
    ),
    "a byte is as large as a word": (
        SHADOW,
        "if itemsize < self.unit:",
        "if False:",
        "byte_of_a_word",
    ),
    "every tick is one's own": (
        SHADOW,
        "(self._owner[ticks] != self._owner[self.now])",
        "False",
        "lost_update",
    ),
    # --- order ------------------------------------------------------------------------------------
    "a relaxed atomic orders": (
        MEMORY,
        "return sem != upstream._ir.MEM_SEMANTIC.RELAXED",
        "return True",
        "unordered_flag",
    ),
    "no atomic orders": (
        MEMORY,
        "return sem != upstream._ir.MEM_SEMANTIC.RELAXED",
        "return False",
        "unordered_flag",
    ),
    "an atomic does not acquire": (
        SHADOW,
        "acquired[other] = max(before[0], ticks[0]), max(before[1], ticks[1])",
        "acquired[other] = before",
        "unlocked_too_early",
    ),
    "an atomic does not release": (
        SHADOW,
        "released[mine] = barrier, self.now",
        "pass",
        "unlocked_too_early",
    ),
    "what was acquired is not handed on": (
        SHADOW,
        "            released.update(acquired)\n",
        "",
        "flag_by_way_of_another",
    ),
    "a lock is released for all lanes": (
        SHADOW,
        "released[mine] = barrier, self.now",
        "released[mine] = self.now, self.now",
        "unlocked_without_barrier",
    ),
    "a barrier does nothing": (
        WATCH,
        'if event.kind in ("barrier", "exchange"):',
        "if False:",
        "no_barrier",
    ),
    "an exchange is a barrier for memory": (
        WATCH,
        'memory=event.kind == "barrier"',
        "memory=True",
        "sum_for_a_barrier",
    ),
    "threads are in order": (
        SHADOW,
        "return (ticks > last) & (self._owner[ticks] == self._owner[self.now])",
        "return np.zeros(ticks.shape, dtype=bool)",
        "no_barrier",
    ),
    "a lane races with itself": (
        WATCH,
        "(lanes[cells] != items.lanes[:, None])",
        "True",
        "updates_its_own",
    ),
    "no lane loads what another stored": (
        WATCH,
        "_check_threads(items, shadow.writer,",
        "_check_threads(items, 0 * shadow.writer,",
        "no_barrier",
    ),
    "no lane overwrites what another loaded": (
        WATCH,
        "_check_threads(items, shadow.last_reader,",
        "_check_threads(items, 0 * shadow.last_reader,",
        "no_barrier",
    ),
    # --- what nobody can know ---------------------------------------------------------------------
    "masked lanes are zero": (
        MEMORY,
        "other = upstream.TensorHandle(undefined(dtype, ptrs.data.shape), dtype)",
        "other = upstream.TensorHandle(0 * undefined(dtype, ptrs.data.shape), dtype)",
        "missing_other_of_integers",
    ),
    "poison may be stored": (
        WATCH,
        "if self._pass.undefined and undefined.any():",
        "if False:",
        "undefined_tile_in_a_product",
    ),
    "no load is careless": (
        MEMORY,
        "leaves = other is None and not _array(mask).all()",
        "leaves = False",
        "missing_other",
    ),
    "the programs keep their order": (
        WATCH,
        "        if not self._shuffled:\n",
        "        if True:\n",
        "ticket",
    ),
    "the second run is not compared": (
        WATCH,
        "if difference is None or failed:",
        "if True:",
        "ticket",
    ),
    "the two causes are not told apart": (
        WATCH,
        "            if still is None:\n",
        "            if False:\n",
        "missing_other_of_integers",
    ),
    "no division is by zero": (
        ARITHMETIC,
        'return _undefined_where(rhs.data == 0, result, "division by zero")',
        "return result",
        "division_by_zero",
    ),
    "no shift is too wide": (
        ARITHMETIC,
        "(rhs.data < 0) | (rhs.data >= width)",
        "(rhs.data < 0)",
        "shift_too_wide",
    ),
    "no shift is negative": (
        ARITHMETIC,
        "(rhs.data < 0) | (rhs.data >= width)",
        "(rhs.data >= width)",
        "shift_to_the_left",
    ),
    "integers do not overflow": (
        ARITHMETIC,
        "if not ((low <= exact) & (exact <= high)).all():",
        "if False:",
        "overflow",
    ),
    "a wait may last for ever": (
        WATCH,
        "if isinstance(error.__cause__, interpreter.EndlessWait):",
        "if False:",
        "never_unlocked",
    ),
}
