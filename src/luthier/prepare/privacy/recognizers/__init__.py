"""One file for each recogniser of personal data; see `luthier.prepare.privacy.base`."""
