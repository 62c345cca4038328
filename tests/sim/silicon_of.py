"""A plugin for pytest (-p silicon_of): the tests run on the build of the silicon that PYHV_TEST_SILICON names."""

import importlib.util
import os
import sys

_NAME = "pyhv.hv.sim._silicon"

if path := os.environ.get("PYHV_TEST_SILICON"):
    assert _NAME not in sys.modules, "the silicon is loaded already"
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec and spec.loader, path
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[_NAME])
