"""What the demo has seen so far: outcomes as they come back from the topics; shows and stores nothing itself."""

from __future__ import annotations

import time
from collections import Counter, deque
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from stream.headers import KafkaRecord, parse_dead_letter
from stream.records import Alert, DeadLetter, Finding, decode
from stream.topics import Topics

MAX_KEPT: Final = 400
_GROWING: Final = (
    "by_class", "by_reason", "degraded", "findings", "alert_findings", "alerts", "dead_letters", "latencies_s",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Board:
    """Running counts, and the newest of everything; ids seen before do not count again.

    `alert_findings` are those behind the newest alerts: they stay when other findings have pushed them out of
    `findings`.
    """

    topics: Topics
    n_to_send: int | None = None
    n_sent: int = 0
    n_findings: int = 0
    n_duplicates: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    findings: deque[Finding] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    alert_findings: deque[Finding] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    dead_letters: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    n_alerts: int = 0
    n_dead_letters: int = 0
    started_s: float = field(default_factory=time.monotonic)
    last_sent_s: float = 0.0
    last_outcome_s: float = field(default_factory=time.monotonic)
    _seen: set[str] = field(default_factory=set)

    @property
    def n_outcomes(self) -> int:
        """Posts whose outcome has been seen."""
        return self.n_findings + self.n_dead_letters + self.n_duplicates

    @property
    def finished(self) -> bool:
        """Whether everything was sent and as many outcomes were seen."""
        return self.n_to_send is not None and self.n_sent >= self.n_to_send and self.n_outcomes >= self.n_sent

    @property
    def posts_per_s(self) -> float:
        """Outcomes a second since the start."""
        elapsed_s = max(1e-3, self.last_outcome_s - self.started_s)
        return self.n_outcomes / elapsed_s

    def latency_s(self, share: float) -> float | None:
        """Return the end-to-end latency that `share` of the findings stayed below."""
        latencies = sorted(self.latencies_s)
        return latencies[int(share * (len(latencies) - 1))] if latencies else None

    def take(self, record: KafkaRecord) -> Finding | Alert | DeadLetter | None:
        """Enter one record of an outcome topic and return what it is; None when it adds nothing to show.

        Raises:
            InvalidRecord: the record is not what its topic promises.
        """
        if record.topic == self.topics.findings.name:
            return self._finding(record)
        if record.topic == self.topics.alerts.name:
            return self._alert(record)
        if record.topic == self.topics.dead_letters.name:
            letter = parse_dead_letter(record)
            if self._is_new(f"letter {letter.id}"):
                self.n_dead_letters += 1
                self.by_reason[letter.reason] += 1
                self.dead_letters.append(letter)
                self.last_outcome_s = time.monotonic()
                return letter
        elif self._is_new(f"{record.topic} {record.partition} {record.offset}"):
            self.n_duplicates += 1
            self.last_outcome_s = time.monotonic()
        return None

    def snapshot(self) -> Board:
        """Return a copy that later outcomes do not change, for another thread to read."""
        return replace(self, **{name: copy(getattr(self, name)) for name in _GROWING})

    def _alert(self, record: KafkaRecord) -> Alert | None:
        alert = decode(record.value, Alert)
        if not self._is_new(f"alert {alert.id}"):
            return None
        self.n_alerts += 1
        self.alerts.append(alert)
        self.alert_findings.extend(finding for finding in self.findings if finding.id in alert.findings)
        return alert

    def _finding(self, record: KafkaRecord) -> Finding | None:
        finding = decode(record.value, Finding)
        if not self._is_new(finding.id):
            return None
        self.n_findings += 1
        self.by_class[finding.label] += 1
        self.degraded.update(finding.degraded)
        self.findings.append(finding)
        if any(finding.id in alert.findings for alert in self.alerts):  # topics are read in no common order
            self.alert_findings.append(finding)
        self.latencies_s.append(record.timestamp / 1000 - finding.accepted_at.timestamp())
        self.last_outcome_s = time.monotonic()
        return finding

    def _is_new(self, key: str) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True
