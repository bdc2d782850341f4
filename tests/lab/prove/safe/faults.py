"""The fault of each broken kernel: the kind of question that no proof may answer."""

# Of small_kernels.py.
FAULTS = {
    "no_mask_broken": "bounds",
    "off_by_one_broken": "bounds",
    "wrong_column_broken": "bounds",
    "gather_broken": "bounds",
    "nested_broken": "bounds",
    "while_broken": "bounds",
    "row_offset_broken": "width",
    "extended_too_late_broken": "width",
    "loop_counter": "width",
    "tiles": "width",
    "two_parts_broken": "width",
    "overlapping_broken": "race",
    "shift_broken": "race",
    "unwritten_broken": "written",
}
# Of traps.py: only a prover with a rule missing would believe them.
TRAPS = {
    "negative_product_broken": "width",
    "narrow_sum_broken": "width",
    "one_too_large_broken": "width",
    "up_to_n_broken": "width",
    "carried_over_broken": "bounds",
    "last_row_broken": "bounds",
    "larger_of_two_broken": "bounds",
    "chosen_broken": "bounds",
    "other_branch_broken": "bounds",
    "largest_of_each_row_broken": "bounds",
    "columns_left_over_broken": "bounds",
    "two_products_broken": "bounds",
    "moved_once_broken": "bounds",
    "of_this_turn_broken": "bounds",
    "by_minus_one_broken": "bounds",
    "squared_broken": "race",
    "nothing_read_broken": "bounds",
    "swapped_broken": "bounds",
    "by_hand_broken": "bounds",
    "all_to_one_broken": "race",
    "read_of_the_next_broken": "race",
    "in_too_short_steps_broken": "race",
    "nobody_there_broken": "written",
    "another_half_broken": "written",
    "nobody_divides_broken": "written",
    "a_row_left_out_broken": "written",
    "found_broken": "bounds",
    "swapped_in_broken": "written",
    "peeked_broken": "race",
}
# Of slow_traps.py: z3 thinks about them for long, so they are asked by hand (broken_prover.py).
SLOW_TRAPS = {
    "gives_up_broken": "bounds",
    "a_row_too_many_broken": "written",
    "unlike_n_broken": "width",
    "beyond_n_broken": "width",
    "shared_head_broken": "race",
    "of_the_next_group_broken": "race",
}
# Of tables.py, about which test_tables.py says more.
OF_TABLES = {
    "wrong_length_broken": "bounds",
    "not_an_address_broken": "bounds",
    "beyond_the_table_broken": "bounds",
    "a_number_as_address_broken": "bounds",
    "two_addresses_broken": "bounds",
    "another_column_broken": "bounds",
    "another_row_broken": "bounds",
    "two_widths_broken": "race",
}
