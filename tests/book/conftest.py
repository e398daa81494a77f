"""Shared by the tests of the book's making: an executed notebook as papermill and execute.py leave it."""

from __future__ import annotations

import hashlib

import pytest

from check import MIME_TYPE


def code(source, tags=(), figure=None, outputs=(), end="2026-03-01T11:59:59.9+00:00"):
    metadata = {"tags": list(tags), "papermill": {"end_time": end}}
    if figure:
        metadata["mystnb"] = {"figure": {"name": figure, "caption": "A figure."}}
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": list(outputs)}


def made_record(name, value):
    scrap = {"name": name, "mime_prefix": "application/papermill.record/"}
    return {"output_type": "display_data", "data": {MIME_TYPE: repr(value)}, "metadata": {"scrapbook": scrap}}


@pytest.fixture
def notebook():
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": "# A title\n\n**Time to run**: see [x](y).\n"},
            code("n_stars = 1_000_000  # stars\nname = 'a'\nseed = 1", tags=["parameters"]),
            code("# Parameters\nn_stars = 500\nname = '<b>'", tags=["injected-parameters"]),
            code("draw()", figure="fig-99-a", outputs=[made_record("error", 0.25)]),
            code("draw()", outputs=[made_record("late", 2.0)], end="2026-03-01T13:00:30+01:00"),
            code("draw()", figure="fig-99-b"),
        ],
        "metadata": {
            "dfaccel": {
                "profile": "quick",
                "parameters": {"n_stars": "500", "name": "'<b>'", "seed": "1"},
                "processor": "One, 2 cores",
                "threads": "1",
                "commit": "abc1234567",
                "reads": {"models/disc/ensemble.safetensors": hashlib.sha256(b"").hexdigest()},
                "versions": {"python": "3.11.7", "torch": "2.3.0"},
            },
            "papermill": {"duration": 62.4, "end_time": "2026-03-01T12:01:02.5+00:00"},
        },
    }
