"""Network attachments: rules that find their faults, and who has which of their addresses."""
