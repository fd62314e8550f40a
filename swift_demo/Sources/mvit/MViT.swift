import Foundation

/// One of the tool's commands.
protocol Command: Sendable {
  /// What it is called.
  static var name: String { get }
  /// How it is used.
  static var usage: String { get }
  /// Carries it out with the words after its name.
  static func run(_ words: ArraySlice<String>) async throws
}

/// The command-line tool.
@main
struct MViT {
  /// The version of the project; a test keeps it that of the Python side.
  static let version = "0.1.0"

  static func main() async {
    let words = CommandLine.arguments.dropFirst()
    guard let name = words.first, !isHelp(name) else {
      // `mvit help COMMAND` is `mvit COMMAND --help`.
      if let topic = words.dropFirst().first, let command = command(topic) {
        return print(command.usage)
      }
      print("Runs the packages that mvit-coreml makes.\n")
      print(commands.map { $0.usage }.joined(separator: "\n\n"))
      return print("\nmvit COMMAND --help, mvit --version")
    }
    if name == "--version" { return print("mvit \(version)") }
    guard let command = command(name) else {
      let names = commands.map { $0.name }.joined(separator: ", ")
      fail("no command \(name); there are \(names)")
    }
    if words.dropFirst().contains(where: { $0 == "--help" || $0 == "-h" }) {
      return print(command.usage)
    }
    do {
      try await command.run(words.dropFirst())
    } catch let error as UsageError {
      fail("\(error)\nUsage:\n\(command.usage)")
    } catch {
      fail(message(error))
    }
  }

  private static var commands: [any Command.Type] {
    [
      ClassifyCommand.self, SegmentCommand.self, BenchCommand.self, PlanCommand.self,
      DescribeCommand.self, ListingCommand.self, PreprocessCommand.self,
      BenchPreprocessCommand.self,
    ]
  }

  private static func command(_ name: String) -> (any Command.Type)? {
    commands.first { $0.name == name }
  }

  private static func isHelp(_ word: String) -> Bool { ["help", "--help", "-h"].contains(word) }

  private static func message(_ error: any Error) -> String {
    if let error = error as? any LocalizedError, let text = error.errorDescription { return text }
    return error.localizedDescription
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("mvit: \(message)\n".utf8))
    exit(2)
  }
}
