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
  static func main() async {
    let words = CommandLine.arguments.dropFirst()
    guard let name = words.first, !["help", "--help", "-h"].contains(name) else {
      print("Runs the packages that mvit-coreml makes.\n")
      print(commands.map { $0.usage }.joined(separator: "\n\n"))
      return
    }
    guard let command = commands.first(where: { $0.name == name }) else {
      let names = commands.map { $0.name }.joined(separator: ", ")
      fail("no command \(name); there are \(names)")
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
    [PreprocessCommand.self, DescribeCommand.self, BenchPreprocessCommand.self] + modelCommands
  }

  private static func message(_ error: any Error) -> String {
    if let error = error as? any LocalizedError, let text = error.errorDescription { return text }
    return error.localizedDescription
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("mvit: \(message)\n".utf8))
    exit(2)
  }
}
