"""The demo's folder: written while outcomes come, cleared only when there is something new to show."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from PIL import Image

from deploy.board import Board
from deploy.exhibit import Exhibit
from deploy.failure import CommandFailed
from deploy.gallery import Gallery
from stream.records import Finding
from stream.topics import topics
from tests.deploy.findings import alert_record, finding_record, make_finding

TOPICS = topics(prefix="t.", n_partitions=1, max_record_bytes=1_000)


@pytest.fixture
def board() -> Board:
    return Board(topics=TOPICS)


@pytest.fixture
def exhibit(tmp_path: Path) -> Exhibit:
    made = Exhibit(tmp_path / "out")
    made.check()
    made.prepare()
    return made


class SlowGallery(Gallery):
    """Has no pictures, and takes its time to find that out."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer = threading.Event()

    def picture(self, finding: Finding) -> Image.Image | None:
        self.asked.set()
        assert self.answer.wait(10)
        return None


def test_page_is_of_one_moment(board: Board, exhibit: Exhibit) -> None:
    """Outcomes that come while it is written neither break it nor half enter it."""
    exhibit.gallery = gallery = SlowGallery()
    board.take(finding_record(make_finding(post_id="came-early")))

    async def write_while_findings_come() -> str | None:
        writing = asyncio.create_task(exhibit.write_live(board, "ledger", refresh_s=6))
        await asyncio.to_thread(gallery.asked.wait, 10)
        board.take(finding_record(make_finding(post_id="came-late", label="unheard_of")))
        gallery.answer.set()
        return await writing

    assert asyncio.run(write_while_findings_come()) is None

    html = exhibit.page.read_text("utf-8")
    assert "came-early" in html
    assert not any(word in html for word in ("came-late", "unheard of", "<b>2</b>"))


def test_page_that_cannot_be_written_ends_nothing(board: Board, exhibit: Exhibit) -> None:
    """It is told, and the next one is written."""
    exhibit.page.mkdir()
    problem = asyncio.run(exhibit.write_live(board, "ledger", refresh_s=6))
    assert problem is not None
    assert "index.html" in problem

    exhibit.page.rmdir()
    assert asyncio.run(exhibit.write_live(board, "ledger", refresh_s=6)) is None
    assert exhibit.page.is_file()


def test_check_changes_nothing(board: Board, exhibit: Exhibit) -> None:
    """What an earlier demo left stays until the next one is ready."""
    exhibit.append(make_finding())
    exhibit.write(board, "ledger")
    before = {file: file.read_bytes() for file in exhibit.folder.iterdir() if file.is_file()}

    Exhibit(exhibit.folder).check()

    assert before
    assert before == {file: file.read_bytes() for file in exhibit.folder.iterdir() if file.is_file()}


def test_foreign_page_is_refused(tmp_path: Path) -> None:
    """A folder may hold somebody's website."""
    (tmp_path / "index.html").write_text("<title>Our town</title>")

    with pytest.raises(CommandFailed, match=r"index\.html is not a page of this demo"):
        Exhibit(tmp_path).check()


class FullGallery(Gallery):
    """Has every picture."""

    def picture(self, finding: Finding) -> Image.Image | None:
        return Image.new("RGB", (40, 20))


def test_picture_behind_an_alert_stays(board: Board, exhibit: Exhibit) -> None:
    """Its evidence is drawn on the page also when other findings have followed."""
    exhibit.gallery = FullGallery()
    alarming = make_finding(picture=True)
    board.take(finding_record(alarming))
    board.take(alert_record(alarming))
    for number in range(450):
        board.take(finding_record(make_finding(post_id=f"p{number}", label="not_humanitarian")))

    assert exhibit.write(board, "ledger") == 1

    assert "data:image/jpeg;base64," in exhibit.page.read_text("utf-8")
