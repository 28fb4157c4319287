"""What an operator decides about the data directory of a replica that does not run."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from replicad.core.effects import Level
from replicad.core.entry import genesis_digest
from replicad.errors import ConfigurationError
from replicad.node.synclog import SyncLog
from replicad.storage.datadir import LOG_DIRECTORY, DataDirectory, Trouble
from replicad.storage.journal import Journal
from replicad.storage.quarantine import LogRepair
from replicad.storage.records import Records
from replicad.storage.syncmark import read_mark


@dataclass(frozen=True, slots=True)
class Survey:
    """What of a damaged disk is good, and what would be given up.

    Attributes:
        reason: What is wrong with it.
        last_good: The last entry that stays.
        disk_id: Its id, which is given up; "" if it is lost.
        quarantine: Where the damaged files would go.
    """

    reason: str
    last_good: int
    disk_id: str
    quarantine: Path


def give_up_damage(
    data_dir: Path, node: str, cluster_id: str | None, confirm: Callable[[Survey], None]
) -> str:
    """Keep what is good up to the first damage, set the rest aside, and give the disk a new id.

    What was written after the last successful sync is kept, too, if it verifies, and is synced.

    Args:
        data_dir: The directory; its replica must not run.
        node: The replica's name.
        cluster_id: Only used if `replica.json` is lost.
        confirm: Called with what is about to be done; raises to prevent it. Nothing was changed.

    Returns:
        The new disk id.

    Raises:
        ConfigurationError: It is in use or another's, or nothing is wrong with it.
        DiskFullError, DiskFailedError: To be begun again.
    """
    directory = DataDirectory.open(data_dir, node)
    try:
        return _give_up(directory, directory.cluster_id or cluster_id, confirm)
    finally:
        directory.close()


def _give_up(
    directory: DataDirectory, cluster_id: str | None, confirm: Callable[[Survey], None]
) -> str:
    if not cluster_id:
        raise ConfigurationError(
            "its cluster is not known: replica.json is lost, or was never bound to one; name it "
            "with --cluster-id (see `replicad cluster status`), or delete the directory"
        )
    reasons = [directory.suspicion.reason] if directory.suspicion else []
    directory.suspect(Trouble.CORRUPT, "an operator's command found damage")
    # Also after a failed sync all is kept that verifies: there may be nobody to get it from.
    repair = LogRepair(
        directory.path, genesis_digest(cluster_id), directory.quarantine, only_synced=False
    )
    damage = repair.next_damage()
    if damage is not None:
        reasons.append(damage.why)
    elif repair.end.index < (known := _known_end(directory.path)):
        reasons.append(f"the log ends at entry {repair.end.index}, and once held entry {known}")
    if not reasons:
        raise ConfigurationError(f"nothing is wrong with {directory.path}; nothing was changed")
    survey = Survey("; ".join(reasons), repair.end.index, directory.disk_id, directory.quarantine)
    confirm(survey)
    directory.replace_disk(cluster_id, repair.last_epoch)
    if damage is not None:
        repair.cut()
    _write_again(directory.path)
    repair.finish()
    directory.trust()
    _tell(directory, survey)
    return directory.disk_id


def _write_again(path: Path) -> None:
    """What was verified may have been read from memory alone, after a failed sync."""
    journal = Journal.open(path)
    try:
        journal.write_again(read_mark(path / LOG_DIRECTORY).position)
        journal.sync()
    finally:
        journal.abandon()


def _known_end(path: Path) -> int:
    """The last entry that something beside the log says to have been there."""
    known = read_mark(path / LOG_DIRECTORY).point.index
    if (path / "records.sqlite").exists():
        records = Records.open(path / "records.sqlite")
        known = max(known, records.applied.index)
        records.close()
    return known


def _tell(directory: DataDirectory, survey: Survey) -> None:
    sync_log = SyncLog(directory.path / "sync.log", directory.node)
    sync_log.write(
        Level.ERROR,
        "disk given up by an operator",
        {
            "node": directory.node,
            "by": getpass.getuser(),
            "reason": survey.reason,
            "index": survey.last_good,
            "old_disk_id": survey.disk_id,
            "disk_id": directory.disk_id,
            "quarantine": str(survey.quarantine),
        },
    )
    sync_log.close()
