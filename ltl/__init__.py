"""ltl, the Lottery Ticket Lab."""
