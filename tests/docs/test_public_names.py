"""What pyhv exports is what the reference documents."""

from documents import ROOT, table

import pyhv


def test_what_is_exported_is_what_is_documented():
    documented = [row[0] for row in table(ROOT / "docs" / "reference" / "api.md", "## Names")]
    assert documented == list(pyhv.__all__)
    for name in documented:
        assert getattr(pyhv, name) is not None
    assert set(pyhv.__all__) <= set(dir(pyhv)) | set(pyhv._WHERE)
