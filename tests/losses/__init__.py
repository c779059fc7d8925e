"""Tests of the objectives; a package, so that other folders may have files of the same names."""
