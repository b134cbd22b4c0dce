"""Every row of the tables, on a machine with real page tables, TSS and ports."""

from __future__ import annotations

from collections import Counter

import pytest

from kvm.emulate import (
    table_exits,
    table_faults,
    table_fetch,
    table_kvm,
    table_permission,
    table_transfers,
    table_traps,
)
from kvm.emulate.case import ALL_MODES, Case, run_case

CASES = (
    *table_transfers.CASES,
    *table_permission.CASES,
    *table_faults.CASES,
    *table_fetch.CASES,
    *table_traps.CASES,
    *table_exits.CASES,
    *table_kvm.CASES,
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    run_case(case)


def test_the_tables_cover_every_mode() -> None:
    rows = Counter(case.mode for case in CASES)
    assert set(rows) == set(ALL_MODES.split())
    assert min(rows.values()) >= 40
    assert all(case.rule for case in CASES)
