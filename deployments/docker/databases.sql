-- Run by the postgres image when its volume is new: beside the warehouse, what the Prefect server keeps its runs in.
create database prefect;
