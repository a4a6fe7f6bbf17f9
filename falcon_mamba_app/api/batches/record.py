"""What is known of each batch, and where it is kept: beside its files, or in memory."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from falcon_mamba_app.errors import NotFound, StoreUnavailable
from falcon_mamba_app.files.store import write_whole

logger = logging.getLogger(__name__)

Json = dict[str, Any]
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
OVER = ("failed", "completed", "expired", "cancelled")
WINDOW_S = 24 * 3_600
MAX_IN_MEMORY = 5_000  # of all owners without a folder, those that run aside


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch. `output_id` and `error_id` are its results, told once they are complete."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None
    created_s: int
    status: Status = "validating"
    at_s: dict[str, int] = field(default_factory=dict)  # when it became what, by status
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[Json] = field(default_factory=list)
    output_id: str | None = None
    error_id: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def expires_s(self) -> int:
        return self.created_s + WINDOW_S

    def become(self, status: Status) -> None:
        """Change the status, and note when."""
        self.status = status
        self.at_s[status] = int(time.time())

    def told(self) -> Json:
        """OpenAI's batch object."""
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
        errors = {"object": "list", "data": self.errors} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_id if self.is_over else None,
            "error_file_id": self.error_id if self.is_over else None,
            "created_at": self.created_s,
            "expires_at": self.expires_s,
            **{f"{name}_at": self.at_s.get(name) for name in (*times, "cancelled")},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": self.metadata,
        }


class Batches:
    """All batches of one place, in a folder or in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._all: dict[str, Batch] = {}
        for path in sorted(folder.glob("batch_*.json")) if folder is not None else ():
            try:
                batch = Batch(**json.loads(path.read_text("utf-8")))
                self._all[batch.id] = batch
            except (OSError, ValueError, TypeError) as error:
                logger.warning("a batch cannot be read: %s (%s)", path, type(error).__name__)

    def keep(self, batch: Batch) -> None:
        """Raises StoreUnavailable."""
        self._all[batch.id] = batch
        if self._folder is None:
            if len(self._all) > MAX_IN_MEMORY:
                oldest = next((old for old in self._all.values() if old.is_over), batch)
                del self._all[oldest.id]
            return
        try:
            write_whole(self._folder / f"{batch.id}.json", json.dumps(asdict(batch)).encode())
        except OSError as error:
            raise StoreUnavailable(
                f"batches cannot be kept just now ({error.strerror}); try again later"
            ) from error

    def get(self, owner: str, batch_id: str) -> Batch:
        """Raises NotFound, for another owner's too."""
        batch = self._all.get(batch_id)
        if batch is None or batch.owner != owner:
            raise NotFound(f"there is no batch {batch_id[:80]}; GET /v1/batches lists yours")
        return batch

    def of(self, owner: str) -> list[Batch]:
        """The owner's batches, the newest first."""
        own = [batch for batch in self._all.values() if batch.owner == owner]
        return sorted(own, key=lambda batch: (batch.created_s, batch.id), reverse=True)

    def unfinished(self) -> list[Batch]:
        """Everybody's batches that are not over."""
        return [batch for batch in self._all.values() if not batch.is_over]

    def drop_oldest(self, owner: str, *, max_number: int) -> None:
        """Forget the owner's oldest batches beyond so many that are over; their files stay."""
        over = [batch for batch in self.of(owner) if batch.is_over]
        for batch in over[max_number:]:
            self.drop(batch)

    def drop(self, batch: Batch) -> None:
        """Forget a batch that nobody answers any more."""
        self._all.pop(batch.id)
        if self._folder is not None:
            (self._folder / f"{batch.id}.json").unlink(missing_ok=True)
