"""What this site's reports say of a study's findings, for its people to judge before it is used."""
