"""From records to what a person reads: tables, figures, and one page that opens anywhere."""
