"""The demo on a real OpenStack: the lab of `script/lab`. All of it but `findings` needs openstacksdk."""
