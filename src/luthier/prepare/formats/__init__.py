"""Formats that prepared data is written in: one a file, each registered at the `FORMATS` seam of
`luthier.prepare.formats.base`; `luthier.prepare.export` is the door."""
