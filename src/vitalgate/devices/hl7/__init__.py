"""HL7 v2 results (ORU^R01, IHE PCD-01) over MLLP: decoder that answers, quirks of real monitors, simulator."""
