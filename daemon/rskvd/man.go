//go:build docs

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the tag docs the program writes its own manual pages, which packages
// hold: rskvd man DIR. Without it none of this is linked.
func init() {
	documentation = func(root *cobra.Command) *cobra.Command {
		return &cobra.Command{
			Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1), Short: "Write the manual pages",
			RunE: func(_ *cobra.Command, args []string) error {
				if err := os.MkdirAll(args[0], 0o755); err != nil {
					return err
				}
				root.DisableAutoGenTag = true
				// The default is a share of the memory of the machine it runs on.
				root.PersistentFlags().Lookup("memory").DefValue = "25%"
				return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "rskv", Manual: "rskv"}, args[0])
			},
		}
	}
}
