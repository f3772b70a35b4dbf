//go:build docs

package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the tag docs the program writes its own manual pages, which packages
// hold: rskv man DIR. Without it none of this is linked.
func init() {
	documentation = func(root *cobra.Command) *cobra.Command {
		return &cobra.Command{
			Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1), Short: "Write the manual pages",
			RunE: func(_ *cobra.Command, args []string) error {
				if err := os.MkdirAll(args[0], 0o755); err != nil {
					return err
				}
				root.DisableAutoGenTag = true
				escapeMarkdown(root)
				return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "rskv", Manual: "rskv"}, args[0])
			},
		}
	}
}

// escapeMarkdown keeps backslashes, of which Markdown takes one of two.
func escapeMarkdown(cmd *cobra.Command) {
	cmd.Long = strings.ReplaceAll(cmd.Long, `\`, `\\`)
	for _, c := range cmd.Commands() {
		escapeMarkdown(c)
	}
}
