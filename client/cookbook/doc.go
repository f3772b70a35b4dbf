// Package cookbook is a test only: the programs below it are the cookbook, each a pattern that comes up
// again and again, as a program that runs. README.md lists them.
package cookbook
