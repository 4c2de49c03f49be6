package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/archfile"
)

// convertOptions are the flags of arch convert.
type convertOptions struct {
	space, toSpace string
	from, to       string
	output         string
	json           bool
}

func newArchConvertCommand() *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:   "convert TEXT | FILE | NAME | - --to FORMAT",
		Short: "Turn an architecture into the form that another code base reads",
		Long: `Turn an architecture into the form that another code base reads. The input is
the text itself, a file, the name of a published network, or - for standard
input; its format is detected unless --from names it.

  digits       one digit a choice block, as everywhere in spos
  yaml         best.yaml and the published networks
  mmrazor-0.x  mutable_cfg of mmrazor's branch 0.x (stage_0_block_0: …)
  mmrazor-1.x  fix_subnet of mmrazor's branch main (backbone.layers.0.0: …)
  list         indices in the order of the space, as official SPOS and DetNAS
               have them: [2, 1, 0], (2, 1, 0) or 2 1 0
  anglenas     indices of AngleNAS: 0 to 5 are mb_k3e3, mb_k3e6, mb_k5e3, mb_k5e6,
               mb_k7e3, mb_k7e6, and -1 is identity
  oneshot      a list of blocks and one of channel scales, or of their indices

A list is taken for AngleNAS's only where it has a -1. --to-space crosses over
to another search space by the names of the candidates.`,
		Example: `  spos arch convert spos-official --to mmrazor-0.x > subnet.yaml
  spos arch convert '[2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3]' --space shufflenetv2-spos --to digits
  spos arch convert best_fix_subnet.yaml --space shufflenetv2-mmrazor --to yaml -o net.yaml
  spos arch convert anglenas-spos --to-space mobilenet-proxylessgpu-mmrazor --to digits`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return configs.Networks(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return archConvertFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.space, "space", "", "search space of the input, where it does not say it")
	f.StringVar(&o.toSpace, "to-space", "", "search space of the result (default: that of the input)")
	f.StringVar(&o.from, "from", "", "format of the input (default: detected)")
	f.StringVar(&o.to, "to", "", "format of the result")
	f.StringVarP(&o.output, "output", "o", "", "file to write (default: standard output)")
	jsonFlag(cmd, &o.json)
	_ = cmd.MarkFlagRequired("to")
	flagSpace(cmd, "space")
	flagSpace(cmd, "to-space")
	var formats []string
	for _, known := range archfile.Formats() {
		formats = append(formats, string(known))
	}
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func archConvertFunc(cmd *cobra.Command, input string, o convertOptions) error {
	for _, format := range []string{o.from, o.to} {
		if format != "" && !slices.Contains(archfile.Formats(), archfile.Format(format)) {
			return fmt.Errorf("%q: no such format; there are %s", format, oneOf(archfile.Formats()))
		}
	}
	s, a, from, err := readArch(cmd, input, o)
	if err != nil {
		return err
	}
	if o.toSpace != "" {
		to, err := configs.Space(o.toSpace)
		if err != nil {
			return err
		}
		if a, err = archfile.Translate(s, to, a); err != nil {
			return fmt.Errorf("cross over to %s: %w", to.Name, err)
		}
		s = to
	}
	text, err := archfile.Encode(s, a, archfile.Format(o.to))
	if err != nil {
		return fmt.Errorf("write as %s: %w", o.to, err)
	}
	if o.output != "" {
		if err := renameio.WriteFile(o.output, text, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", o.output, err)
		}
	}
	switch {
	case o.json:
		return PrintJSON(cmd, struct {
			Space string          `json:"space"`
			Arch  arch.Arch       `json:"arch"`
			From  archfile.Format `json:"from"`
			To    string          `json:"to"`
			Text  string          `json:"text"`
		}{s.Name, a, from, o.to, string(text)})
	case o.output != "":
		return nil
	default:
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
}

// readArch reads the input of a conversion: an arch, its space and the format
// it was in.
func readArch(cmd *cobra.Command, input string, o convertOptions) (*arch.Space, arch.Arch, archfile.Format, error) {
	if slices.Contains(configs.Networks(), input) {
		f, err := configs.Network(input)
		if err != nil {
			return nil, "", "", err
		}
		s, a, err := ofSpace(f, o.space, input)
		return s, a, archfile.YAML, err
	}
	text, from, err := readInput(cmd, input)
	if err != nil {
		return nil, "", "", err
	}
	format := archfile.Format(o.from)
	if format == "" {
		if format, err = archfile.Detect(text); err != nil {
			return nil, "", "", WithHint(fmt.Errorf("%s: %w", from, err), "--from names the format: "+oneOf(archfile.Formats()))
		}
	}
	if format == archfile.YAML {
		f, err := archfile.Parse(text, from)
		if err != nil {
			return nil, "", "", err
		}
		s, a, err := ofSpace(f, o.space, from)
		return s, a, format, err
	}
	if o.space == "" {
		return nil, "", "", WithHint(fmt.Errorf("%s: it is in the format %s, which does not say the search space", from, format), "name it with --space: "+strings.Join(configs.Spaces(), ", "))
	}
	s, err := configs.Space(o.space)
	if err != nil {
		return nil, "", "", err
	}
	a, err := archfile.Decode(s, text, format, from)
	return s, a, format, err
}

// ofSpace is a file's arch in the space it names, or in a file's own space
// that the user named.
func ofSpace(f archfile.File, space, from string) (*arch.Space, arch.Arch, error) {
	if space == "" {
		s, a, err := configs.SpaceOf(f)
		if errors.Is(err, configs.ErrUnknownSpace) {
			err = WithHint(err, "give the space's own file with --space")
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", from, err)
		}
		return s, a, err
	}
	s, err := configs.Space(space)
	if err != nil {
		return nil, "", err
	}
	a, err := f.In(s)
	if err != nil {
		return nil, "", WithHint(fmt.Errorf("%s: %w", from, err), "--to-space crosses over to another space, --space says what the input is of")
	}
	return s, a, nil
}

// readInput is the text that - or a path stands for, or the word itself, and
// how errors call it.
func readInput(cmd *cobra.Command, input string) ([]byte, string, error) {
	switch {
	case input == "-":
		text, err := archfile.ReadFrom(cmd.InOrStdin(), "standard input")
		return text, "standard input", err
	case configs.IsPath(input):
		text, err := archfile.ReadText(input)
		return text, input, err
	default:
		return []byte(input), "the text", nil
	}
}
