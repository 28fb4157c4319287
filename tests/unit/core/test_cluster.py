from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member, majority

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INDEXES = st.integers(0, 2**63 - 1)
DISKS = st.builds(Disk, NAMES, NAMES)


@given(
    st.builds(
        ClusterState,
        epoch=INDEXES,
        leader=NAMES | st.none(),
        incarnation=NAMES | st.none(),
        url=NAMES | st.none(),
        isr=st.lists(DISKS, max_size=5).map(tuple),
        nonce=NAMES,
    )
)
def test_a_state_is_read_back(state: ClusterState) -> None:
    read = ClusterState.from_json(state.to_json())
    assert read == state
    assert all(isinstance(member, Disk) for member in read.isr)


@given(st.builds(ClusterConfig, NAMES, st.lists(NAMES).map(tuple), INDEXES, INDEXES))
def test_a_config_is_read_back(config: ClusterConfig) -> None:
    assert ClusterConfig.from_json(config.to_json()) == config


@given(st.builds(Member, NAMES, NAMES, NAMES, NAMES, INDEXES, INDEXES, NAMES, INDEXES, NAMES))
def test_a_member_is_read_back(member: Member) -> None:
    assert Member.from_json(member.to_json()) == member


@pytest.mark.parametrize(("replicas", "most"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majorities(replicas: int, most: int) -> None:
    assert majority(replicas) == most
