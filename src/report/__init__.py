"""What is made of finished runs: tables, later plots and pages."""
