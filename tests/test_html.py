"""HTML files that load nothing from elsewhere and cannot be broken by what they show."""

import json

import numpy as np
import pytest

from irformer.dynamics.figures import Curve
from irformer.errors import UserError
from irformer.reporting.html import embedded_json
from irformer.reporting.page import write_page
from irformer.reporting.surface import write_surfaces
from irformer.reporting.tables import ResultTable

HOSTILE = '</script><!--<script src="https://example.com">&amp;'


def test_embedded_json_has_no_markup_and_keeps_its_value():
    text = embedded_json({"name": HOSTILE, "values": [1.5, None]})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"name": HOSTILE, "values": [1.5, None]}


def test_embedded_json_refuses_what_json_cannot_express():
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


def test_a_report_escapes_names_and_forbids_requests(tmp_path):
    write_page(tmp_path / "report.html", HOSTILE, {HOSTILE: HOSTILE}, [ResultTable(HOSTILE, [HOSTILE], [[HOSTILE]], [HOSTILE])], [HOSTILE])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "default-src 'none'" in page


def test_surfaces_need_runs(tmp_path):
    with pytest.raises(UserError, match="found no runs, expected at least one"):
        write_surfaces(tmp_path / "surfaces.html", {}, [48])


def test_surfaces_name_a_run_whose_statistics_are_incomplete(tmp_path):
    arms = {"a\nrun": {"mean_square": [Curve(np.array([0]), np.array([1.0]))]}}
    with pytest.raises(UserError, match="dynamics of a run: found mean_square, expected channel_entropy too; record them"):
        write_surfaces(tmp_path / "surfaces.html", arms, [48])
    assert not (tmp_path / "surfaces.html").exists()
