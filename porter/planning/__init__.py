"""Planning: from headers, configs and tables to a proved, frozen plan. No weight is read here."""
