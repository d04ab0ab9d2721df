"""What tests share: projects, stand-ins and cases. No test module imports another."""
